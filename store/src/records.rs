//! What is recorded of a session, as rows.

use std::time::Duration;

use broker_core::{Ends, MessageId, SessionRecord, unix_ms};
use fjall::Readable as _;

use crate::disk::Disk;
use crate::schema::{numbers, read_numbers, seal, unseal};

/// What is recorded now. Its time may be over, and it only not deleted yet.
pub(crate) fn find(disk: &Disk, name: &str) -> fjall::Result<Option<SessionRecord>> {
    // What is on its way here is on its way to both: of one moment they are.
    let snapshot = disk.db.snapshot();
    let (row, served) = (snapshot.get(&disk.sessions, name)?, snapshot.get(&disk.served, name)?);
    let Some(row) = row else { return Ok(None) };
    let record = read_rows(&row, served.as_deref());
    if record.is_none() {
        tracing::error!(session = name, "the record of a session is damaged; the session begins anew");
    }
    let is_over = |record: &SessionRecord| matches!(record.ends, Ends::At(at) if at <= unix_ms());
    Ok(record.filter(|record| record.will.is_some() || !is_over(record)))
}

/// What changes often of a session: when it ends, its position, and that part of its record.
pub(crate) fn write_served(record: &SessionRecord, moving: &[u8]) -> Vec<u8> {
    let numbers_of = |ends: Ends| match ends {
        Ends::At(at) => (1, at),
        Ends::After(after) => (2, millis(after)),
        _ => (0, 0),
    };
    let (mut kind, when) = numbers_of(record.ends);
    if record.will.is_some() {
        kind |= HAS_WILL;
    }
    let (epoch, offset) = record.position.map_or((0, 0), |position| (position.epoch(), position.offset()));
    let mut row = numbers([kind, when, u64::from(record.position.is_some()), epoch, offset]);
    if let Some((kind, when)) = record.will.map(numbers_of) {
        row.extend_from_slice(&numbers([kind, when]));
    }
    row.extend_from_slice(moving);
    seal(&row)
}

/// `None`: damaged.
pub(crate) fn read_rows(row: &[u8], served: Option<&[u8]>) -> Option<SessionRecord> {
    match served {
        Some(served) => {
            let mut record = read_served(served)?;
            let moving = record.state.len();
            record.state = [unseal(row)?, &record.state].concat().into();
            Some(record.with_moving(moving))
        }
        // Schema 1 wrote all of it into one.
        None => read_served(row),
    }
}

fn read_served(row: &[u8]) -> Option<SessionRecord> {
    let (head, mut state) = unseal(row)?.split_first_chunk::<40>()?;
    let [kind, when, has_position, epoch, offset] = read_numbers(head)?;
    let ends_of = |kind, when| match kind {
        0 => Some(Ends::Never),
        1 => Some(Ends::At(when)),
        2 => Some(Ends::After(Duration::from_millis(when))),
        _ => None,
    };
    let (ends, mut will) = (ends_of(kind & !HAS_WILL, when)?, None);
    if kind & HAS_WILL != 0 {
        let (head, rest) = state.split_first_chunk::<16>()?;
        let [kind, when] = read_numbers(head)?;
        (will, state) = (Some(ends_of(kind, when)?), rest);
    }
    let position = (has_position == 1).then_some(MessageId::new(epoch, offset));
    Some(SessionRecord::new(state.to_vec(), position).ending(ends).with_will(will))
}

/// Beside the kind of a record's end: its will follows the head.
const HAS_WILL: u64 = 1 << 8;

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let position = Some(MessageId::new(7, 9));
        for record in [
            SessionRecord::new("", None),
            SessionRecord::new("state", position).ending(Ends::At(5)).with_moving(3),
            SessionRecord::new("state", position).ending(Ends::At(5)).with_will(Some(Ends::At(6))),
            SessionRecord::new("", None).with_will(Some(Ends::After(Duration::from_secs(9)))),
            SessionRecord::new(vec![0, 255], position)
                .ending(Ends::After(Duration::from_millis(u64::MAX)))
                .with_moving(9),
        ] {
            let (settled, moving) = record.parts();
            let (row, served) = (seal(settled), write_served(&record, moving));
            assert_eq!(
                read_rows(&row, Some(&served)).map(|read| read.parts().0.to_vec()),
                Some(settled.to_vec())
            );
            let read = read_rows(&row, Some(&served)).unwrap();
            assert_eq!(read.with_moving(0), record.clone().with_moving(0));
            assert_eq!(read_rows(&row, Some(&served[1..])), None);
            assert_eq!(read_rows(&row[1..], Some(&served)), None);
            // As schema 1 wrote it.
            let whole = record.with_moving(0);
            assert_eq!(read_rows(&write_served(&whole, &whole.state), None), Some(whole));
        }
        assert_eq!(read_rows(&seal(b"short"), None), None);
    }
}
