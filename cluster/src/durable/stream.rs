//! The streams of JetStream: what they must be, how they come to be, and where they stand.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::context::{
    Context, ContextBuilder, CreateStreamError, CreateStreamErrorKind, GetStreamErrorKind, RequestError,
};
use async_nats::jetstream::stream::{Config, Info, LastRawMessageErrorKind, Republish, Source, Stream};
use async_nats::jetstream::{Error as ApiError, ErrorCode};
use broker_core::{MessageId, Unavailable, unix_ms};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::sleep;

use super::frame;
use super::session_life::SessionLife;
use crate::error::JoinError;
use crate::node::Node;
use crate::settings::Settings;

/// How long an answer of JetStream may take; a publish is tried again then.
pub(crate) const ATTEMPT: Duration = Duration::from_secs(4);

/// How long the start waits for streams: a new one has no leader for a moment, and NATS may be starting itself.
const START_TIMEOUT: Duration = Duration::from_secs(15);

const START_PAUSE: Duration = Duration::from_millis(200);

/// How long the streams know what was published: of a publish that is sent again within it there is one.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// How the stream of retained messages is described, behind which stands which life of the other one it is of.
const RETAINED_OF: &str = "Retained messages of durable channels of Fanwire, of life ";

/// Publishes that may be on their way at once.
const MAX_IN_FLIGHT: usize = 16_384;

/// What whoever wants something of the stream now is told.
pub(crate) const SOON: Unavailable = Unavailable::new(Duration::from_secs(1));

/// One of the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Kept,
    Retained,
    Sessions,
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The oldest sequence that is there, or would be.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Which life of the stream it is.
    pub(crate) epoch: u64,
}

/// What is found where a stream should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Stands(Reach),
    /// NATS says that there is none.
    Gone,
    /// Nobody says anything.
    Silent,
}

/// The stream of kept messages, and that of what is retained of them.
pub(crate) struct Streams {
    pub(crate) node: Arc<Node>,
    pub(crate) context: Context,
    pub(crate) kept: Stream<()>,
    pub(crate) retained: Stream<()>,
    pub(crate) sessions: Stream<()>,
    /// The newest sequence of the first one up to which all is released here.
    pub(crate) released: watch::Sender<u64>,
    /// Which life of the first one it was when it was opened.
    pub(crate) epoch: u64,
    /// And of the second one.
    pub(crate) retained_epoch: u64,
    /// Which life of the third one this node goes by.
    pub(crate) session_life: SessionLife,
    /// That may be another one by now: it is to be looked at.
    pub(crate) doubt: Notify,
    /// Where the first of them stood when that was asked last, and when that was.
    reach: Mutex<Option<(Instant, Reach)>>,
}

impl Streams {
    /// Finds the streams or makes them; where the first of them stands.
    pub(crate) async fn open(node: Arc<Node>) -> Result<(Self, Reach), JoinError> {
        let context =
            ContextBuilder::new().timeout(ATTEMPT).max_ack_inflight(MAX_IN_FLIGHT).build(node.client.clone());
        let end = Instant::now() + START_TIMEOUT;
        loop {
            let tried = Self::try_open(&node, &context).await;
            match tried {
                Ok(([kept, retained, sessions], reach, retained_epoch, session_life)) => {
                    let epoch = reach.epoch;
                    let released = watch::Sender::new(reach.last);
                    let streams = Self {
                        node,
                        context,
                        kept,
                        retained,
                        sessions,
                        released,
                        epoch,
                        retained_epoch,
                        session_life,
                        doubt: Notify::new(),
                        reach: Mutex::default(),
                    };
                    return Ok((streams, reach));
                }
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(why)) if Instant::now() >= end => return Err(JoinError::NoStream(why)),
                Err(Trouble::Passing(_)) => sleep(START_PAUSE).await,
            }
        }
    }

    async fn try_open(node: &Node, context: &Context) -> Result<Tried, Trouble> {
        if !node.is_linked() {
            return Err(Trouble::Passing("no NATS server answers".to_owned()));
        }
        check_version(node)?;
        let subjects = &node.subjects;
        let own = Config {
            name: subjects.stream(),
            subjects: vec![subjects.kept()],
            max_age: node.settings.max_age,
            max_bytes: i64::try_from(node.settings.max_bytes).unwrap_or(i64::MAX),
            duplicate_window: DUPLICATE_WINDOW.min(node.settings.max_age),
            republish: Some(Republish {
                source: subjects.kept(),
                destination: subjects.stored(),
                headers_only: false,
            }),
            description: Some("Durable channels of Fanwire".to_owned()),
            ..common()
        };
        let info = ensure(node, context, own).await?;
        let of_sessions = ensure(node, context, session_config(node)).await?;
        let session_life = SessionLife::new(reach_of(&of_sessions)?.epoch, is_anew(&of_sessions, &info));
        let reach = reach_of(&info)?;
        let of_retained = ensure(node, context, retained_config(node, reach.epoch)).await?;
        let retained = reach_of(&of_retained)?.epoch;
        let by_name = async |name: String| {
            context.get_stream_no_info(&name).await.map_err(|error| Trouble::Passing(error.to_string()))
        };
        let streams = [
            by_name(subjects.stream()).await?,
            by_name(subjects.retained_stream()).await?,
            by_name(subjects.session_stream()).await?,
        ];
        Ok((streams, reach, retained, session_life))
    }

    /// Makes the stream of sessions anew, with nothing in it.
    pub(crate) async fn remake_sessions(&self) -> bool {
        ensure(&self.node, &self.context, session_config(&self.node)).await.is_ok()
    }

    /// Makes the stream of what is retained anew; the server fills it from the other one.
    pub(crate) async fn remake_retained(&self) -> bool {
        let wanted = retained_config(&self.node, self.epoch);
        ensure(&self.node, &self.context, wanted).await.is_ok()
    }

    /// What is where a stream should be, by the word of NATS.
    pub(crate) async fn look(&self, of: Of) -> Look {
        let stream = match of {
            Of::Kept => &self.kept,
            Of::Retained => &self.retained,
            Of::Sessions => &self.sessions,
        };
        match stream.get_info().await {
            Ok(info) => reach_of(&info).map_or(Look::Silent, Look::Stands),
            Err(error) if is_not_found(&error) => Look::Gone,
            Err(_) => Look::Silent,
        }
    }

    /// Where the stream of kept messages stands by the word of its leader, asked now or later than now.
    pub(crate) async fn reach(&self) -> Result<Reach, Unavailable> {
        let now = Instant::now();
        // Whoever waits here gets the answer to a question that was asked after its own.
        let mut known = self.reach.lock().await;
        if let Some((asked, reach)) = *known
            && asked >= now
        {
            return Ok(reach);
        }
        let asked = Instant::now();
        let Look::Stands(reach) = self.look(Of::Kept).await else { return Err(SOON) };
        *known = Some((asked, reach));
        Ok(reach)
    }

    /// The same, unless it is another stream than the one that was opened: what is in that has other ids.
    pub(crate) async fn own_reach(&self) -> Result<Reach, Unavailable> {
        self.reach().await.and_then(|reach| if reach.epoch == self.epoch { Ok(reach) } else { Err(SOON) })
    }

    /// The sequence of the next message that matches, from one on, by the word of the leader.
    pub(crate) async fn next_of(&self, subject: &str, from: u64) -> Result<Option<u64>, Unavailable> {
        match self.kept.get_first_raw_message_by_subject(subject, from).await {
            Ok(message) => Ok(Some(message.sequence)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(_) => Err(SOON),
        }
    }
}

impl Reach {
    /// The id of the newest place that is taken.
    pub(crate) fn head(&self) -> MessageId {
        MessageId::new(self.epoch, if self.last == 0 { 0 } else { frame::end_of(self.last) })
    }

    /// The oldest offset from which all is there.
    pub(crate) fn oldest(&self) -> u64 {
        match self.first.saturating_sub(1) {
            0 => 0,
            gone => frame::end_of(gone),
        }
    }
}

/// Streams that are there: where the first of them stands, and the lives of the others.
type Tried = ([Stream<()>; 3], Reach, u64, SessionLife);

/// Why streams are not there.
enum Trouble {
    /// It may be another thing in a moment.
    Passing(String),
    Final(JoinError),
}

impl From<JoinError> for Trouble {
    fn from(error: JoinError) -> Self {
        Self::Final(error)
    }
}

fn check_version(node: &Node) -> Result<(), JoinError> {
    let needed @ (major, minor, patch) = Settings::MIN_DURABLE_SERVER;
    if node.client.is_server_compatible(major, minor, patch) {
        return Ok(());
    }
    Err(JoinError::TooOldToKeep { found: node.client.server_info().version, needed })
}

fn is_not_found(error: &RequestError) -> bool {
    let why = error.source().and_then(|why| why.downcast_ref::<ApiError>());
    why.is_some_and(|why| why.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn session_config(node: &Node) -> Config {
    Config {
        name: node.subjects.session_stream(),
        subjects: vec![node.subjects.sessions()],
        max_messages_per_subject: 1,
        allow_message_ttl: true,
        description: Some("MQTT sessions of Fanwire".to_owned()),
        ..common()
    }
}

/// Whether the stream of sessions was made a moment ago where there were messages before, so that other nodes may have
/// sessions which they have not written there yet.
fn is_anew(of_sessions: &Info, of_kept: &Info) -> bool {
    let ms = |info: &Info| info.created.unix_timestamp_nanos() / 1_000_000;
    let made = ms(of_sessions);
    made - ms(of_kept) > 5_000 && (i128::from(unix_ms()) - made).abs() < 60_000
}

/// Filled by the server from the stream of kept messages, so that nobody has to write two. It says of which life of that it is.
fn retained_config(node: &Node, epoch: u64) -> Config {
    let subjects = &node.subjects;
    Config {
        name: subjects.retained_stream(),
        max_messages_per_subject: 1,
        sources: Some(vec![Source {
            name: subjects.stream(),
            filter_subject: Some(subjects.kept_retained()),
            ..Source::default()
        }]),
        description: Some(format!("{RETAINED_OF}{epoch:x}")),
        ..common()
    }
}

fn common() -> Config {
    Config {
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        allow_direct: true,
        ..Config::default()
    }
}

/// Finds a stream that is as it should be, or makes it so.
async fn ensure(node: &Node, context: &Context, mut wanted: Config) -> Result<Info, Trouble> {
    let replicas = node.settings.replicas;
    wanted.num_replicas = replicas;
    let found = match context.get_stream(&wanted.name).await {
        Ok(stream) => stream.cached_info().clone(),
        Err(error) => {
            let code = match error.kind() {
                GetStreamErrorKind::JetStream(error) => error.error_code(),
                _ => return Err(Trouble::Passing(error.to_string())),
            };
            match code {
                ErrorCode::STREAM_NOT_FOUND => return create(node, context, wanted).await,
                ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                    return Err(JoinError::NoStream(error.to_string()).into());
                }
                _ => return Err(Trouble::Passing(error.to_string())),
            }
        }
    };
    let is_ours = found.config.subjects == wanted.subjects
        && found.config.republish.as_ref().map(|one| &one.destination)
            == wanted.republish.as_ref().map(|one| &one.destination);
    if !is_ours {
        return Err(JoinError::OtherStream(wanted.name).into());
    }
    let is_of_a_life = |config: &Config| {
        config.description.as_ref().is_some_and(|description| description.starts_with(RETAINED_OF))
    };
    if is_of_a_life(&found.config) && found.config.description != wanted.description {
        // What it has is of a stream that is gone, and places there mean something else in the one that is now.
        tracing::error!(stream = wanted.name, "the stream that it was filled from is gone: it is made anew");
        let gone = context.delete_stream(&wanted.name).await;
        gone.map_err(|error| Trouble::Passing(error.to_string()))?;
        return create(node, context, wanted).await;
    }
    let is_as_wanted = |info: &Info| {
        let (found, wanted) = (&info.config, &wanted);
        found.max_age == wanted.max_age
            && found.max_bytes == wanted.max_bytes
            && found.duplicate_window >= wanted.duplicate_window
            && found.num_replicas >= wanted.num_replicas
            && found.allow_direct
            && found.description == wanted.description
    };
    if is_as_wanted(&found) {
        return Ok(found);
    }
    let mut config = found.config.clone();
    (config.max_age, config.max_bytes) = (wanted.max_age, wanted.max_bytes);
    config.duplicate_window = wanted.duplicate_window;
    config.num_replicas = config.num_replicas.max(replicas);
    config.allow_direct = true;
    config.description = wanted.description;
    match context.update_stream(&config).await {
        Ok(info) => Ok(info),
        Err(error) => match has_too_few(&error) {
            true if node.settings.allow_unsafe => {
                config.num_replicas = found.config.num_replicas;
                let info = context.update_stream(&config).await;
                warn_of_few(node, config.num_replicas);
                info.map_err(|error| Trouble::Passing(error.to_string()))
            }
            true => Err(too_few(node, found.config.num_replicas)),
            false => Err(Trouble::Passing(error.to_string())),
        },
    }
}

async fn create(node: &Node, context: &Context, mut wanted: Config) -> Result<Info, Trouble> {
    let error = match context.create_stream(wanted.clone()).await {
        Ok(stream) => return Ok(stream.cached_info().clone()),
        Err(error) => error,
    };
    if !has_too_few(&error) {
        // Another node may have made it meanwhile, or its leader is not chosen yet: it is looked for again.
        return Err(Trouble::Passing(error.to_string()));
    }
    if !node.settings.allow_unsafe {
        return Err(too_few(node, 1));
    }
    wanted.num_replicas = 1;
    let stream = context.create_stream(wanted).await;
    let stream = stream.map_err(|error| Trouble::Passing(error.to_string()))?;
    warn_of_few(node, 1);
    Ok(stream.cached_info().clone())
}

/// Whether there are not as many servers as copies are wanted.
fn has_too_few(error: &CreateStreamError) -> bool {
    let few = [ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED, ErrorCode::CLUSTER_NO_PEERS];
    matches!(error.kind(), CreateStreamErrorKind::JetStream(error) if few.contains(&ApiError::error_code(&error)))
}

fn too_few(node: &Node, found: usize) -> Trouble {
    JoinError::TooFewReplicas { found, wanted: node.settings.replicas }.into()
}

fn warn_of_few(node: &Node, found: usize) {
    let wanted = node.settings.replicas;
    tracing::warn!(found, wanted, "durable channels have fewer copies than are asked for");
}

fn reach_of(info: &Info) -> Result<Reach, Trouble> {
    let state = &info.state;
    let first = if state.messages == 0 { state.last_sequence + 1 } else { state.first_sequence };
    let created = info.created.unix_timestamp_nanos();
    Ok(Reach { first, last: state.last_sequence, epoch: epoch(&info.config.name, created) })
}

/// Which life of a stream it is: by its name and the time when it was made. Forty bits, which is less than the times that
/// logs in memory are called by.
fn epoch(name: &str, created_ns: i128) -> u64 {
    let hash = Sha256::new().chain_update(name).chain_update(created_ns.to_be_bytes()).finalize();
    hash.iter().take(5).fold(0, |epoch, byte| epoch << 8 | u64::from(*byte)) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_that_of_one_stream() {
        let one = epoch("fw_H0", 1);
        assert!(one != epoch("fw_H0", 2) && one != epoch("fv_H0", 1) && one < 1 << 40);
        let reach = Reach { first: 1, last: 0, epoch: one };
        assert_eq!((reach.head(), reach.oldest()), (MessageId::new(one, 0), 0));
        let reach = Reach { first: 8, last: 9, epoch: one };
        assert_eq!((reach.head().offset(), reach.oldest()), (frame::end_of(9), frame::end_of(7)));
    }
}
