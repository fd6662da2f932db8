//! Looks whether a store is sound.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use broker_core::{Accepted, Channel};

use crate::block::{Block, read_index};
use crate::bucket::{Bucket, Form};
use crate::disk::{DATABASE, Disk, read_retained};
use crate::error::OpenError;
use crate::journal::{Cut, Damage, cuts};
use crate::lock::{Expect, Lock};
use crate::schema::{channel_key, index_key, offset_of, unseal};
use crate::sessions::read_row;
use crate::walk::told;

/// What was found. Its text is a line for each namespace that has messages, then one for the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    namespaces: BTreeMap<String, Space>,
    epoch: u64,
    head: u64,
    retained: u64,
    sessions: u64,
    keys: u64,
    is_unread: bool,
    /// Keys whose values are damaged.
    pub damaged: Vec<String>,
}

/// Whole messages of channels with one first level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Space {
    messages: u64,
    /// Of their records, before they are compressed.
    bytes: u64,
    oldest_ms: u64,
    newest_ms: u64,
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
        for bucket in disk.buckets().iter().filter(|bucket| bucket.group == group.number) {
            look_into(disk, bucket, &group.name, &mut report)?;
        }
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

/// Reads a bucket of a group.
fn look_into(disk: &Disk, bucket: &Bucket, group: &str, report: &mut Report) -> fjall::Result<()> {
    let (rows, mut messages, mut is_known) = (&bucket.keyspace, 0, true);
    match bucket.form {
        Form::Single => {
            for row in rows.prefix("m") {
                let (key, sealed) = row.into_inner()?;
                let offset = offset_of(&key).unwrap_or(0);
                messages += 1;
                if let Some(channel) = report.add(group, offset, &sealed) {
                    let hash = disk.secret.channel(channel.as_str());
                    report.note_index(group, offset, rows.contains_key(channel_key(hash, offset))?);
                }
            }
        }
        form @ (Form::Runs | Form::Named) => {
            for row in rows.prefix("b") {
                let (key, row) = row.into_inner()?;
                let first = offset_of(&key).unwrap_or(0);
                let Some(block) = Block::read(form, first, &row) else {
                    report.damaged.push(format!("block {first} of {group:?}"));
                    is_known = false;
                    continue;
                };
                for (offset, sealed) in block.messages() {
                    messages += 1;
                    let Some(channel) = report.add(group, offset, sealed) else { continue };
                    let hash = disk.secret.channel(channel.as_str());
                    let is_told = match form {
                        Form::Named => told(bucket, hash, offset)? == Some(first),
                        _ => {
                            let index = rows.get(index_key(hash, block.run))?;
                            let mut entries = index.iter().flat_map(|index| read_index(block.run, index));
                            entries.any(|entry| entry == (offset, first))
                        }
                    };
                    report.note_index(group, offset, is_told);
                }
            }
        }
    }
    let held = bucket.held();
    if is_known && held.messages != messages {
        let (first, said) = (bucket.first, held.messages);
        report
            .damaged
            .push(format!("bucket {first} of {group:?}: {said} messages are said, {messages} are there"));
    }
    Ok(())
}

impl Report {
    /// Counts a message; its channel, if it is whole.
    fn add(&mut self, group: &str, offset: u64, sealed: &[u8]) -> Option<Channel> {
        let record = unseal(sealed);
        // Also one whose time is over.
        let Some(Ok(accepted)) = record.map(|record| Accepted::read_as_written(record, offset)) else {
            self.damaged.push(format!("message {offset} of {group:?}"));
            return None;
        };
        let (channel, time_ms) = (accepted.publish.channel().clone(), accepted.time_ms);
        let space = match self.namespaces.get_mut(channel.namespace()) {
            Some(space) => space,
            None => self.namespaces.entry(channel.namespace().to_owned()).or_default(),
        };
        space.oldest_ms = if space.messages == 0 { time_ms } else { space.oldest_ms.min(time_ms) };
        space.newest_ms = space.newest_ms.max(time_ms);
        space.messages += 1;
        space.bytes += record.map_or(0, <[u8]>::len) as u64;
        Some(channel)
    }

    fn note_index(&mut self, group: &str, offset: u64, is_there: bool) {
        if !is_there {
            self.damaged.push(format!("index of message {offset} of {group:?}"));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, space) in &self.namespaces {
            let Space { messages, bytes, oldest_ms, newest_ms } = space;
            writeln!(f, "{name} messages={messages} bytes={bytes} oldest={oldest_ms} newest={newest_ms}")?;
        }
        if self.is_unread {
            return write!(f, "damaged: what lies behind is not read");
        }
        let what = if self.damaged.is_empty() { "ok" } else { "damaged" };
        let Self { epoch, head, retained, sessions, keys, .. } = self;
        write!(f, "{what} epoch={epoch} head={head} retained={retained} sessions={sessions} keys={keys}")
    }
}
