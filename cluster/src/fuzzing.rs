//! What the fuzzer of `fuzz/` calls. Its corpus runs as an ordinary test as well, so that what a fuzzer has found once
//! is looked at on every run.

use broker_core::Accepted;
use bytes::Bytes;

use crate::control::frame as control;
use crate::durable::frame as kept;
use crate::durable::row::Row;
use crate::durable::work::held::Partly;
use crate::durable::work::place::Place;
use crate::frame::{self, Content};
use crate::groups::Word;

/// What came from NATS, read as each of the things that nodes send: whatever is understood is written as something that
/// reads the same, and a message's offset is in its frame.
pub fn frames(bytes: &[u8]) {
    message(bytes);
    stored(bytes);
    told(bytes);
    if let Some(row) = Row::read(bytes) {
        assert_eq!(Row::read(&row.write()).as_ref(), Some(&row));
    }
    if let Some(place) = Place::read(bytes) {
        assert_eq!(place.write(), bytes);
    }
    if let Some(partly) = Partly::read(bytes) {
        assert_eq!(partly.write(), bytes);
    }
    let mut rest = bytes;
    while let Some((word, behind)) = Word::read(rest) {
        assert!(behind.len() < rest.len());
        let mut written = Vec::new();
        word.write(&mut written);
        assert_eq!(Word::read(&written), Some((word, &b""[..])));
        rest = behind;
    }
}

/// A message of memory, and a node's other words.
fn message(bytes: &[u8]) {
    let Ok((origin, content)) = frame::read(bytes) else { return };
    let again = match content {
        Content::Message(publish, time_ms) => {
            let (channel, payload) = (publish.channel().clone(), publish.payload().clone());
            let sent = frame::message(origin, &Accepted::new(*publish, 0, time_ms).into_message(1));
            let (again, content) = frame::read(&sent).expect("it was written here");
            // Its time may be over by now.
            if let Content::Message(publish, again) = content {
                assert_eq!((publish.channel(), publish.payload(), again), (&channel, &payload, time_ms));
            }
            again
        }
        Content::Forget(channel) => {
            let (again, content) =
                frame::read(&frame::forget(origin, &channel)).expect("it was written here");
            assert!(matches!(content, Content::Forget(forgotten) if forgotten == channel));
            again
        }
        Content::Hello(name) => {
            let (again, content) =
                frame::read(&frame::hello(origin.life, &name)).expect("it was written here");
            assert!(matches!(content, Content::Hello(said) if said == name));
            return assert_eq!(again.life, origin.life);
        }
        Content::Expired | Content::Bye => return,
    };
    assert_eq!(again, origin);
}

/// A frame of the stream.
fn stored(bytes: &[u8]) {
    const SEQUENCE: u64 = 7;
    let Ok(frame) = kept::read(bytes, SEQUENCE) else { return };
    let origin = frame.origin;
    let messages = frame.content.into_messages();
    assert!(messages.len() <= kept::MAX_MESSAGES);
    let offsets: Vec<u64> = messages.iter().map(|one| one.offset).collect();
    assert!(offsets.is_sorted_by(|one, other| one < other));
    assert!(offsets.iter().all(|offset| kept::sequence(*offset) == SEQUENCE));
    let records: Vec<Vec<u8>> = messages
        .iter()
        .map(|one| {
            let mut record = Vec::new();
            one.write_to(&mut record);
            record
        })
        .collect();
    let written = kept::messages(origin, records.iter().map(Vec::as_slice));
    let again = kept::read(&written, SEQUENCE).expect("it was written here");
    assert_eq!(again.origin, origin);
    assert!(again.content.into_messages().len() <= messages.len());
}

/// What nodes ask and tell each other.
fn told(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let Some(frame) = control::read(&bytes) else { return };
    // A name that no service can have finds none.
    let Ok(service) = std::str::from_utf8(&frame.service) else { return };
    assert_eq!(control::write(frame.kind, frame.life, frame.number, service, &frame.body), bytes);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_corpus_of_frames_holds() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/cluster_frames");
        let mut kinds = [0; 5];
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            let bytes = std::fs::read(path).unwrap();
            frames(&bytes);
            let read = [
                frame::read(&bytes).is_ok(),
                kept::read(&bytes, 1).is_ok(),
                control::read(&Bytes::from(bytes.clone())).is_some(),
                Row::read(&bytes).is_some(),
                Word::read(&bytes).is_some(),
            ];
            kinds.iter_mut().zip(read).for_each(|(count, is_one)| *count += usize::from(is_one));
        }
        assert!(kinds.iter().all(|count| *count > 0), "each of them is in the corpus: {kinds:?}");
    }

    /// Each byte of each one, with other values, and each cut: what the fuzzer would try first.
    #[test]
    fn whatever_is_changed_is_understood_or_not() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/cluster_frames");
        for entry in std::fs::read_dir(folder).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            for at in 0..bytes.len() {
                frames(&bytes[..at]);
                for value in [0, 1, 2, 4, 8, 0x7f, 0x80, 0xff] {
                    let mut other = bytes.clone();
                    other[at] = value;
                    frames(&other);
                }
            }
        }
    }
}
