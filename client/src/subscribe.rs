//! `fanwire sub`: an event stream that is opened again, from where it broke, for as long as it is wanted.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::{HeaderValue, Method, Response, header};
use outgoing::Body;
use outgoing::events::{Block, Parser, Piece};
use serde::Deserialize;
use tokio::time::timeout;

use crate::endpoint::Endpoint;
use crate::failure::{Failure, is_passing};
use crate::output::{Format, Printer};
use crate::pace::Pace;
use crate::table::shown;
use crate::{Sub, tell};

/// Largest event that is put together: above what a server with default limits can send, base64 and all.
pub(crate) const MAX_EVENT_BYTES: usize = 64 << 20;

pub(crate) async fn run(arguments: Sub) -> Result<(), Failure> {
    let mut follower = Follower::new(&arguments)?;
    for filter in &arguments.filters {
        if let Some(hint) = mqtt_habit(filter) {
            tell(format_args!("{hint}"));
        }
    }
    let mut is_first = true;
    loop {
        let (opened, why) = match follower.open().await {
            Ok(response) => {
                if is_first {
                    let filters =
                        arguments.filters.iter().map(|filter| shown(filter)).collect::<Vec<_>>().join(" ");
                    tell(format_args!("listening to {filters} at {}", follower.endpoint.url));
                } else {
                    tell(format_args!("connected again"));
                }
                is_first = false;
                let opened = Instant::now();
                match follower.read(response.into_body()).await? {
                    End::Enough => return Ok(()),
                    End::Broken(why) => (Some(opened), why),
                }
            }
            // Whoever starts it wants to know at once; a stream that once worked is worth waiting for.
            Err(failure) if is_first || is_final(&failure) => return Err(failure),
            Err(failure) => {
                if let Failure::Refused { retry_after: Some(retry), .. } = &failure {
                    follower.pace.server_asks(*retry);
                }
                (None, failure.to_string())
            }
        };
        let wait = follower.pace.wait(opened, Instant::now(), fastrand::f64());
        let from = follower.last_id.as_deref().map_or_else(String::new, |id| format!(" from {id}"));
        tell(format_args!("{why}; resuming{from} in {:.1} s", wait.as_secs_f64()));
        tokio::time::sleep(wait).await;
    }
}

/// What to say of a filter with MQTT's wildcards, which mean something else here or nothing.
fn mqtt_habit(filter: &str) -> Option<String> {
    let has = |wanted: &str| filter.split('/').any(|segment| segment == wanted);
    // A `#` that is not last is refused by the server in its own words.
    has("+").then(|| {
        let here = filter.split('/').map(|segment| if segment == "+" { "*" } else { segment });
        let here = here.collect::<Vec<_>>().join("/");
        format!("`+` is a plain name here, not a wildcard; one segment is `*`: '{}'", shown(&here))
    })
}

/// Whether asking the same again is in vain.
fn is_final(failure: &Failure) -> bool {
    match failure {
        Failure::Refused { status, .. } => !is_passing(*status),
        Failure::Arguments(_) | Failure::Local(_) | Failure::NotAll(_) => true,
        // Something between here and the server may speak for it while it is away.
        Failure::Unreachable { .. } | Failure::Foreign { .. } => false,
    }
}

/// Why a stream is not read any more.
enum End {
    /// As many messages came as were asked for.
    Enough,
    Broken(String),
}

struct Follower {
    endpoint: Endpoint,
    target: String,
    last_id: Option<String>,
    /// Messages still wanted; `None` has no end.
    left: Option<u64>,
    idle_limit: Duration,
    printer: Printer,
    pace: Pace,
}

impl Follower {
    fn new(arguments: &Sub) -> Result<Self, Failure> {
        let format = arguments.format.unwrap_or_else(|| Format::usual(&arguments.filters));
        let mut query = Serializer::new(String::new());
        for filter in &arguments.filters {
            query.append_pair("channel", filter);
        }
        // The envelope tells JSON, text and bytes apart, and names the channel: every form can be made of it.
        query.append_pair("format", "json");
        if arguments.no_retained {
            query.append_pair("retained", "false");
        }
        Ok(Follower {
            endpoint: Endpoint::new(&arguments.server)?,
            target: format!("/sse?{}", query.finish()),
            last_id: arguments.last_event_id.clone(),
            left: arguments.count,
            idle_limit: Duration::from_secs(arguments.idle_timeout.max(1)),
            printer: Printer::new(format),
            pace: Pace::default(),
        })
    }

    async fn open(&self) -> Result<Response<Body>, Failure> {
        let mut request = self.endpoint.request(Method::GET, &self.target);
        request = request.header(header::ACCEPT, "text/event-stream");
        if let Some(id) = &self.last_id {
            let id = HeaderValue::from_str(id)
                .map_err(|_| Failure::Arguments(format!("`{id}` is no id of an event")))?;
            request = request.header("last-event-id", id);
        }
        let request = request.body(Bytes::new()).map_err(|error| Failure::Arguments(error.to_string()))?;
        let response = self.endpoint.send(request).await?;
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        match kind.and_then(|kind| kind.split(';').next()) {
            Some(essence) if essence.trim().eq_ignore_ascii_case("text/event-stream") => Ok(response),
            _ => Err(self.endpoint.foreign(format!("it sent {}", kind.unwrap_or("no content type")))),
        }
    }

    /// Prints what comes until there is enough of it, or no more comes.
    async fn read(&mut self, mut body: Body) -> Result<End, Failure> {
        let mut parser = Parser::new(MAX_EVENT_BYTES);
        loop {
            let mut bytes = match timeout(self.idle_limit, body.next()).await {
                Ok(Ok(Some(bytes))) => bytes,
                Ok(Err(error)) => return Ok(End::Broken(format!("connection lost ({error})"))),
                Ok(Ok(None)) => return Ok(End::Broken("the server ended the stream".to_owned())),
                Err(_) => {
                    return Ok(End::Broken(format!("nothing came for {} s", self.idle_limit.as_secs())));
                }
            };
            loop {
                let (piece, taken) = match parser.feed(&bytes) {
                    Ok(Some(read)) => read,
                    Ok(None) => break,
                    Err(error) => return Ok(End::Broken(error.to_string())),
                };
                let _ = bytes.split_to(taken);
                match piece {
                    Piece::Retry(retry) => self.pace.server_asks(retry),
                    // A stream that resumes says none: what comes first there is an event, and cut off it must come again.
                    Piece::Begins(id) => self.last_id = self.last_id.take().or(Some(id)),
                    Piece::Block(block) => {
                        if let Some(end) = self.take(block)? {
                            self.printer.flush()?;
                            return Ok(end);
                        }
                    }
                    _ => {}
                }
            }
            self.printer.flush()?;
        }
    }

    fn take(&mut self, block: Block) -> Result<Option<End>, Failure> {
        if let Some(data) = block.data
            && !(block.name == b"gap" && tell_gap(&data))
        {
            match self.printer.print(&data) {
                Ok(()) => {}
                // Not ours, or not whole: from the last good one it may come right.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Ok(Some(End::Broken(format!("an event is no message ({error})"))));
                }
                Err(error) => return Err(error.into()),
            }
            self.pace.progress();
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        // After the message, so that one that could not be printed comes again. An empty id takes the last one back.
        if let Some(id) = block.id {
            self.last_id = Some(id).filter(|id| !id.is_empty());
        }
        Ok(if self.left == Some(0) { Some(End::Enough) } else { None })
    }
}

/// What the server says about messages that are gone.
#[derive(Deserialize)]
struct Gap {
    channel: String,
    requested: String,
    first: String,
}

/// Tells of a gap. A message may be named so too; its envelope has no `requested`.
fn tell_gap(data: &[u8]) -> bool {
    let Ok(Gap { channel, requested, first }) = serde_json::from_slice(data) else { return false };
    tell(format_args!(
        "gap on {channel}: what followed {requested} may be lost, the oldest that is kept is {first}"
    ));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_that_is_a_whole_segment_is_a_habit_of_mqtt() {
        let said = mqtt_habit("chat/+/x/+").unwrap();
        assert!(said.ends_with("'chat/*/x/*'"), "{said}");
        for plain in ["chat/*", "a+b/c", "chat/#", "chat/**", ""] {
            assert_eq!(mqtt_habit(plain), None, "{plain}");
        }
    }
}
