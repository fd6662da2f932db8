//! Groups that share durable messages, as JetStream has them: a consumer for each, which gives every message of the stream
//! that its filter matches to one of the nodes that ask, and to another one when nobody has said in time what became of it.

use std::fmt::Write as _;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, Info, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::ConsumerCreateStrictErrorKind;
use broker_core::{Terms, Unavailable, WorkError};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use crate::durable::frame;
use crate::durable::stream::{ATTEMPT, SOON, Streams};
use crate::groups::GroupId;

/// How long a node may be silent about what it was given. Longer than JetStream takes to choose another leader, and than a
/// node may be cut off without being given up.
const ACK_WAIT: Duration = Duration::from_secs(20);

/// Frames of a group that may be with nodes at a time.
const MAX_WITH_NODES: i64 = 10_000;

/// Questions for more that may wait, of all nodes.
const MAX_QUESTIONS: i64 = 512;

/// A group keeps its place for so long at least while no node asks: longer than any outage of a node or of NATS.
const LASTS_AT_LEAST: Duration = Duration::from_secs(300);

/// The same where members outlive their connections, by which it is known that somebody may come back.
const KEPT_AT_LEAST: Duration = Duration::from_secs(301);

/// So often another node may be faster with the same.
const MAX_TRIES: usize = 5;

/// What JetStream calls a group's consumer. Its name and filter may be of any length and letters.
pub(crate) fn name_of(id: &GroupId) -> String {
    let hash = Sha256::new().chain_update(id.name()).chain_update([0]).chain_update(id.filter().to_string());
    hash.finalize().iter().take(16).fold("share-".to_owned(), |mut name, byte| {
        // Into a `String`, which never fails.
        _ = write!(name, "{byte:02x}");
        name
    })
}

/// A group's consumer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    /// How long it lasts while nobody asks.
    pub(crate) lasts: Duration,
    /// It was made now.
    pub(crate) is_new: bool,
}

impl Streams {
    /// Finds a group's consumer, or makes one that begins at a sequence and lasts so long.
    pub(crate) async fn open_consumer(
        &self,
        id: &GroupId,
        from: u64,
        lasts: Duration,
    ) -> Result<Opened, WorkError> {
        let name = name_of(id);
        for _ in 0..MAX_TRIES {
            let Some(found) = self.find_consumer(&name).await? else {
                let max = self.node.settings.max_groups;
                let all = within(self.kept.get_info()).await?.map_err(|_| SOON)?;
                if all.state.consumer_count >= max {
                    return Err(WorkError::Full { max });
                }
                let made = within(self.kept.create_consumer_strict(self.config_of(id, from, lasts))).await?;
                match made.map_err(|error| error.kind()) {
                    Ok(_) => return Ok(Opened { lasts, is_new: true }),
                    Err(ConsumerCreateStrictErrorKind::AlreadyExists) => continue,
                    Err(_) => return Err(SOON.into()),
                }
            };
            if found.config.inactive_threshold >= lasts {
                return Ok(Opened { lasts: found.config.inactive_threshold, is_new: false });
            }
            // All else is as it was made.
            let config = pull::Config {
                deliver_policy: found.config.deliver_policy,
                ..self.config_of(id, from, lasts)
            };
            // Whoever wants more meanwhile writes that; the next look tells whose word it is.
            _ = within(self.kept.update_consumer(config)).await?;
        }
        Err(SOON.into())
    }

    fn config_of(&self, id: &GroupId, from: u64, lasts: Duration) -> pull::Config {
        let subjects = self.node.subjects.kept_of_filter(id.filter());
        let name = name_of(id);
        pull::Config {
            durable_name: Some(name.clone()),
            name: Some(name),
            description: Some("A shared subscription of Fanwire".to_owned()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from.max(1) },
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_deliver: -1,
            // A filter without any has names that are too long for a message to have them.
            filter_subjects: if subjects.is_empty() {
                vec![self.node.subjects.kept()]
            } else {
                subjects.into_vec()
            },
            max_ack_pending: MAX_WITH_NODES,
            max_waiting: MAX_QUESTIONS,
            inactive_threshold: lasts,
            ..pull::Config::default()
        }
    }

    /// A consumer as its leader has it.
    pub(crate) async fn find_consumer(&self, name: &str) -> Result<Option<Info>, Unavailable> {
        match within(self.kept.consumer_info(name)).await? {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(None),
            Err(_) => Err(SOON),
        }
    }

    /// Nobody is in the group any more: if nobody comes back to it either, it is over.
    pub(crate) async fn end_consumer(&self, id: &GroupId) {
        let name = name_of(id);
        if let Ok(Some(found)) = self.find_consumer(&name).await
            && found.config.inactive_threshold <= LASTS_AT_LEAST
            && found.num_waiting == 0
        {
            _ = within(self.kept.delete_consumer(&name)).await;
        }
    }

    /// Asks for so many messages, which come to an inbox.
    pub(crate) async fn ask_for(&self, name: &str, inbox: &str, credit: usize, lasts: Duration) -> bool {
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{name}", self.node.subjects.stream());
        let question = format!(r#"{{"batch":{credit},"expires":{}}}"#, lasts.as_nanos());
        let asked = self.node.client.publish_with_reply(subject, inbox.to_owned(), question.into());
        timeout(ATTEMPT, asked).await.is_ok_and(|asked| asked.is_ok())
    }
}

async fn within<T>(answer: impl Future<Output = T>) -> Result<T, Unavailable> {
    timeout(ATTEMPT, answer).await.map_err(|_| SOON)
}

/// How long a group is to keep its place. What is older than messages are kept is worth nothing.
pub(crate) fn lasts(terms: &Terms, max_age: Duration) -> Duration {
    let most = if max_age.is_zero() { Duration::MAX } else { max_age };
    // In nanoseconds, as JetStream has it, that is the most there is of a time.
    let most = most.min(Duration::from_nanos(i64::MAX as u64));
    let least = if terms.outlives.is_zero() { LASTS_AT_LEAST } else { KEPT_AT_LEAST };
    terms.outlives.clamp(least, most.max(least))
}

/// The sequence from which a group begins that nobody knows.
pub(crate) fn begins_at(terms: &Terms, epoch: u64, head: u64) -> u64 {
    let behind = terms.behind.filter(|behind| behind.epoch() == epoch);
    behind.map_or(head, |behind| frame::sequence(behind.offset()).min(head)) + 1
}

#[cfg(test)]
mod tests {
    use broker_core::{Filter, MessageId};

    use super::*;

    #[test]
    fn a_group_has_a_name_of_its_own() {
        let name = |group: &str, filter: &str| name_of(&GroupId::new(group, &Filter::parse(filter).unwrap()));
        assert_eq!(name("a", "b/*"), name("a", "b/*"));
        assert!(name("a", "b/*") != name("a", "b/**") && name("a", "b") != name("b", "b"));
        assert!(name("ü.*>", "a").bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    }

    #[test]
    fn a_group_keeps_its_place_for_as_long_as_its_members_and_messages_last() {
        let day = Duration::from_secs(86_400);
        let of = |outlives, max_age| lasts(&Terms::new(outlives, None), max_age);
        assert_eq!(of(Duration::ZERO, day), LASTS_AT_LEAST);
        assert_eq!(of(Duration::from_secs(1), day), KEPT_AT_LEAST);
        assert_eq!(of(Duration::from_secs(1), Duration::from_secs(5)), KEPT_AT_LEAST);
        assert_eq!((of(day / 2, day), of(7 * day, day)), (day / 2, day));
        assert_eq!(of(Duration::MAX, Duration::ZERO), Duration::from_nanos(i64::MAX as u64));
    }

    #[test]
    fn a_group_begins_now_or_where_a_session_stood() {
        let of = |behind| begins_at(&Terms::new(Duration::ZERO, behind), 7, 9);
        let behind = |epoch, sequence| Some(MessageId::new(epoch, frame::end_of(sequence)));
        assert_eq!((of(None), of(behind(7, 4)), of(behind(7, 40)), of(behind(6, 4))), (10, 5, 10, 10));
    }
}
