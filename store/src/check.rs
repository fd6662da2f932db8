//! Looks whether a store is sound.

use std::fmt;
use std::path::Path;

use broker_core::Accepted;

use crate::bucket::Held;
use crate::disk::{DATABASE, Disk, read_retained};
use crate::error::OpenError;
use crate::journal::{Cut, Damage, cuts};
use crate::lock::{Expect, Lock};
use crate::schema::{channel_key, offset_of, unseal};
use crate::sessions::read_row;

/// What was found. Its text is a line for each group of messages, then one for the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    groups: Vec<(String, Held)>,
    epoch: u64,
    head: u64,
    retained: u64,
    sessions: u64,
    notes: u64,
    keys: u64,
    is_unread: bool,
    /// Keys whose values are damaged.
    pub damaged: Vec<String>,
}

/// Reads all that a store holds, and drops nothing. Nobody else has it meanwhile. What a crash left in its journal is
/// taken in, as at any start.
///
/// # Errors
/// See [`OpenError`]; there is no store, it is in use, or it does not open.
pub fn check(directory: &Path) -> Result<Report, OpenError> {
    let _lock = Lock::take(directory, Expect::Store)?;
    let cuts = cuts(&directory.join(DATABASE))
        .map_err(|error| OpenError::Io { path: directory.to_owned(), error })?;
    if !cuts.is_empty() {
        // Opening it would cut them off.
        let damaged = cuts.iter().map(Cut::to_string).collect();
        return Ok(Report { damaged, is_unread: true, ..Report::default() });
    }
    let (disk, head) = Disk::open(directory, Damage::Refuse)?;
    Ok(look_through(&disk, head)?)
}

/// Reads all that is there.
pub(crate) fn look_through(disk: &Disk, head: u64) -> fjall::Result<Report> {
    let mut report = Report { epoch: disk.epoch, head, ..Report::default() };
    for group in disk.groups() {
        let mut all =
            Held { begun_ms: u64::MAX, newest_ms: 0, last: group.dropped_through, messages: 0, bytes: 0 };
        for bucket in disk.buckets().iter().filter(|bucket| bucket.group == group.number) {
            let mut messages = 0;
            for row in bucket.keyspace.prefix("m") {
                let (key, value) = row.into_inner()?;
                let offset = offset_of(&key).unwrap_or(0);
                let record = unseal(&value).map(|record| Accepted::read_from(record, offset));
                let is_found = |accepted: &Accepted| {
                    let hash = disk.secret.channel(accepted.publish.channel().as_str());
                    bucket.keyspace.contains_key(channel_key(hash, offset))
                };
                match &record {
                    Some(Ok(Some(accepted))) if !is_found(accepted)? => {
                        report.damaged.push(format!("index of message {offset} of {:?}", group.name));
                    }
                    Some(Ok(_)) => {}
                    None | Some(Err(_)) => {
                        report.damaged.push(format!("message {offset} of {:?}", group.name));
                    }
                }
                messages += 1;
                all.last = all.last.max(offset);
            }
            let held = bucket.held();
            if held.messages != messages {
                let name = &group.name;
                let first = bucket.first;
                let said = held.messages;
                report.damaged.push(format!(
                    "bucket {first} of {name:?}: {said} messages are said, {messages} are there"
                ));
            }
            all.messages += messages;
            all.bytes += held.bytes;
            all.begun_ms = all.begun_ms.min(held.begun_ms);
            all.newest_ms = all.newest_ms.max(held.newest_ms);
        }
        report.groups.push((group.name, all));
    }
    for row in disk.retained.iter() {
        let (key, value) = row.into_inner()?;
        report.retained += 1;
        if read_retained(&value).is_none() {
            report.damaged.push(format!("retained message of {}", String::from_utf8_lossy(&key)));
        }
    }
    for row in disk.sessions.iter() {
        let (key, value) = row.into_inner()?;
        report.sessions += 1;
        if read_row(&value).is_none() {
            report.damaged.push(format!("session {:?}", String::from_utf8_lossy(&key)));
        }
    }
    for row in disk.notes.iter() {
        let (key, value) = row.into_inner()?;
        report.notes += 1;
        if unseal(&value).is_none() {
            report.damaged.push(format!("note {:?}", String::from_utf8_lossy(&key)));
        }
    }
    for row in disk.meta.prefix("k") {
        let Some(number) = offset_of(&row.key()?) else { continue };
        let name = crate::schema::generation_name(number);
        report.keys += disk.db.keyspace(&name, crate::disk::options)?.len()? as u64;
    }
    Ok(report)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, held) in &self.groups {
            let name = if name.is_empty() { "*" } else { name };
            let oldest = if held.messages == 0 { 0 } else { held.begun_ms };
            let (messages, bytes, newest) = (held.messages, held.bytes, held.newest_ms);
            writeln!(f, "{name} messages={messages} bytes={bytes} oldest={oldest} newest={newest}")?;
        }
        if self.is_unread {
            return write!(f, "damaged: what lies behind is not read");
        }
        let what = if self.damaged.is_empty() { "ok" } else { "damaged" };
        let Self { epoch, head, retained, sessions, notes, keys, .. } = self;
        write!(f, "{what} epoch={epoch} head={head} retained={retained} sessions={sessions} ")?;
        write!(f, "notes={notes} keys={keys}")
    }
}
