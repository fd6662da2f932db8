//! What is retained of durable channels, at the start of a node.
//!
//! The server itself takes retained messages over from the stream of all, and keeps the newest of each channel there. It
//! does so a moment later: what it has not taken over yet is read from the stream of all.

use ahash::AHashMap;
use broker_core::{Accepted, Unavailable};
use bytes::Bytes;

use super::fetch::Stored;
use super::frame::{self, Content};
use super::stream::{Of, Reach, Streams};

/// Channels of which nothing is retained any more that are taken out of the stream at a start.
const MAX_SWEPT: usize = 4_096;

/// The newest frame of each channel, by its subject.
type Newest = AHashMap<String, Found>;

struct Found {
    /// In the stream of all.
    sequence: u64,
    /// In that of what is retained, if it was found there.
    place: Option<u64>,
    payload: Bytes,
}

/// What is retained, and what need not stay in its stream: subjects, with their places there.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) retained: Vec<Accepted>,
    pub(crate) over: Vec<(String, u64)>,
}

impl Streams {
    /// What is retained where the stream of kept messages stands at `reach`.
    pub(crate) async fn load_retained(&self, reach: Reach) -> Result<Loaded, Unavailable> {
        let subject = self.node.subjects.kept_retained();
        let mut newest = Newest::new();
        let mut taken_over = 0;
        let mut next = 1;
        loop {
            let batch = self.batch(Of::Retained, &subject, next).await?;
            let Some(last) = batch.messages.last() else { break };
            next = last.sequence + 1;
            for Stored { subject, sequence: place, source, payload } in batch.messages {
                let sequence = source.unwrap_or(0);
                taken_over = taken_over.max(sequence);
                // What is newer comes.
                if sequence <= reach.last {
                    newest.insert(subject, Found { sequence, place: Some(place), payload });
                }
            }
            if batch.is_last {
                break;
            }
        }
        let mut next = taken_over + 1;
        while next <= reach.last {
            let batch = self.certain(&subject, next, reach.last).await?;
            let Some(last) = batch.messages.last() else { break };
            next = last.sequence + 1;
            for Stored { subject, sequence, payload, .. } in batch.messages {
                if sequence <= reach.last {
                    newest.insert(subject, Found { sequence, place: None, payload });
                }
            }
            if batch.is_last {
                break;
            }
        }
        let mut loaded = Loaded::default();
        for (subject, Found { sequence, place, payload }) in newest {
            match retained_of(sequence, &payload) {
                Some(message) => loaded.retained.push(message),
                None => loaded.over.extend(place.map(|place| (subject, place))),
            }
        }
        loaded.over.truncate(MAX_SWEPT);
        loaded.retained.sort_unstable_by_key(|message| message.offset);
        Ok(loaded)
    }

    /// Takes out of the stream what says that nothing is retained, and what is over. Who loads meanwhile finds the same in
    /// the stream of all, as long as there is something older there.
    pub(crate) async fn sweep(&self, over: Vec<(String, u64)>) {
        for (subject, place) in over {
            // What came since stays. It is tried again at the next start.
            _ = self.retained.purge().sequence(place + 1).filter(subject).await;
        }
    }
}

/// The message that a frame has retained, if there still is one.
fn retained_of(sequence: u64, payload: &[u8]) -> Option<Accepted> {
    let frame = frame::read(payload, sequence).ok()?;
    if matches!(frame.content, Content::Clear(_)) {
        return None;
    }
    let last = frame.content.into_messages().into_iter().rfind(|message| message.publish.is_retained())?;
    (!last.publish.payload().is_empty()).then_some(last)
}

#[cfg(test)]
mod tests {
    use broker_core::{Channel, Publish};

    use super::super::frame::Origin;
    use super::*;

    #[test]
    fn an_empty_message_and_a_clearing_leave_nothing() {
        let origin = Origin { life: 1, number: 1 };
        let a = Channel::parse("a").unwrap();
        let of = |text: &str, retain| {
            let mut record = Vec::new();
            let publish = Publish::new(a.clone(), text.to_owned()).retain(retain);
            Accepted::new(publish, 0, 1).write_to(&mut record);
            retained_of(4, &frame::messages(origin, std::iter::once(&record[..]))).map(|kept| kept.offset)
        };
        assert_eq!((of("x", true), of("", true), of("x", false)), (Some(frame::offset(4, 0)), None, None));
        assert!(retained_of(4, &frame::clear(origin, &a)).is_none());
        assert!(retained_of(4, b"nonsense").is_none());
    }
}
