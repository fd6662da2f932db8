//! The stream of sessions' rows: what is there of one, and in its place something newer, if nobody else was faster. Beside
//! them lie those of groups ([`place`](super::place)).

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use broker_core::{Ends, Unavailable, unix_ms};
use bytes::Bytes;
use tokio::time::timeout;

use super::row::Row;
use super::session_life::Where;
use super::stream::{ATTEMPT, SOON, Streams};

/// How long a row stays whose owner has recorded nothing yet: its node is gone.
const CLAIM_LASTS: Duration = Duration::from_secs(3_600);

/// The newest row of a session.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its place in the stream: whoever puts another one there says which one is to be the last till then.
    pub(crate) revision: u64,
    /// `None`: it cannot be read.
    pub(crate) row: Option<Row>,
}

/// Why a row is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Another one is the last.
    Moved,
    /// It is more than the server takes.
    TooLarge,
    /// It was refused, or never sent.
    Refused,
    /// It may be there.
    Unknown,
}

impl Streams {
    /// What is recorded of a session, by the word of the stream's leader.
    pub(crate) async fn find_row(&self, name: &str) -> Result<Option<Found>, Unavailable> {
        let subject = self.node.subjects.of_session(name);
        let Some((revision, payload)) = self.last_at(&subject).await? else { return Ok(None) };
        let row = Row::read(&payload).filter(|row| &*row.name == name);
        if row.is_none() {
            tracing::error!(session = name, "the record of a session is not understood: it begins anew");
        }
        Ok(Some(Found { revision, row }))
    }

    /// What stands at a subject of the stream, and its revision.
    pub(super) async fn last_at(&self, subject: &str) -> Result<Option<(u64, Bytes)>, Unavailable> {
        let found = self.sessions.get_last_raw_message_by_subject(subject);
        match timeout(ATTEMPT, found).await.map_err(|_| SOON)? {
            Ok(message) => Ok(Some((message.sequence, message.payload))),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    self.doubt.notify_one();
                    Err(SOON)
                }
                _ => Err(SOON),
            },
        }
    }

    /// Writes a row where the last one is `after` (0: none); its revision.
    pub(crate) async fn write_row(&self, row: &Row, after: u64) -> Result<u64, Trouble> {
        let subject = self.node.subjects.of_session(&row.name);
        self.put(subject, row.write(), lasts(row), after).await
    }

    /// Puts something at a subject where the last is `after` (0: none), for so many seconds; its revision.
    pub(super) async fn put(
        &self,
        subject: String,
        payload: Vec<u8>,
        seconds: Option<u64>,
        after: u64,
    ) -> Result<u64, Trouble> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", after.to_string().as_str());
        if let Some(seconds) = seconds {
            headers.insert("Nats-TTL", format!("{seconds}s").as_str());
        }
        let before = self.session_life.before();
        let sent = self.context.publish_with_headers(subject, headers, payload.into());
        let stored = async { sent.await?.await };
        match timeout(ATTEMPT, stored).await {
            Ok(Ok(ack)) => match self.session_life.note_stored(before, ack.sequence) {
                Where::Here => Ok(ack.sequence),
                Where::Unknown => Err(Trouble::Unknown),
                // What nodes have is not written in that one yet, so nothing may begin there.
                Where::Elsewhere => {
                    _ = self.delete_row(ack.sequence).await;
                    self.doubt.notify_one();
                    Err(Trouble::Refused)
                }
            },
            Ok(Err(error)) => Err(match error.kind() {
                PublishErrorKind::WrongLastSequence => Trouble::Moved,
                PublishErrorKind::MaxPayloadExceeded => Trouble::TooLarge,
                PublishErrorKind::StreamNotFound => {
                    self.doubt.notify_one();
                    Trouble::Refused
                }
                PublishErrorKind::Other => Trouble::Refused,
                _ => Trouble::Unknown,
            }),
            Err(_) => Err(Trouble::Unknown),
        }
    }

    /// Deletes a session's row, if it is still this one.
    pub(crate) async fn delete_row(&self, revision: u64) -> Result<(), Trouble> {
        match timeout(ATTEMPT, self.sessions.delete_message(revision)).await {
            Ok(Ok(true)) => Ok(()),
            // What is not there cannot be deleted; a look tells what is.
            _ => Err(Trouble::Unknown),
        }
    }
}

/// After how many seconds the server is to forget a row by itself; `None`: never.
fn lasts(row: &Row) -> Option<u64> {
    let Some(record) = &row.record else { return Some(CLAIM_LASTS.as_secs()) };
    match record.ends {
        // Before that its will is seen to, and whoever has left it may be back.
        _ if record.will.is_some() || row.is_left => None,
        Ends::At(at_ms) => Some(at_ms.saturating_sub(unix_ms()).div_ceil(1_000).max(1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use broker_core::SessionRecord;

    use super::*;

    #[test]
    fn a_row_lasts_as_long_as_its_session() {
        let row =
            |record, is_left| Row { life: 1, fence: 1, name: "a".into(), record, marks: Vec::new(), is_left };
        let of = |record| lasts(&row(record, false));
        let record = |ends| Some(SessionRecord::new("", None).ending(ends));
        assert_eq!(of(None), Some(3_600));
        assert_eq!(of(record(Ends::Never)), None);
        assert_eq!(of(record(Ends::After(Duration::ZERO))), None, "its client is here");
        assert_eq!(of(record(Ends::At(0))), Some(1));
        assert!((59..=61).contains(&of(record(Ends::At(unix_ms() + 60_000))).unwrap()));
        let with_will = record(Ends::At(0)).map(|record| record.with_will(Some(Ends::At(0))));
        assert_eq!(of(with_will), None);
        assert_eq!(lasts(&row(record(Ends::At(0)), true)), None);
    }
}
