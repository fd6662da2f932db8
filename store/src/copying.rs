//! All that a store holds at one moment, as rows that can be sent.

use std::io::{self, BufReader, BufWriter, Read, Write};

use fjall::{Keyspace, Readable as _, Snapshot};

use crate::disk::Disk;

/// What a copy begins with, with the number of its form.
const GREETING: &[u8; 16] = b"fanwire store 1\n";

/// A row's value at most; more is no row.
const MAX_VALUE_BYTES: u32 = 1 << 30;

/// What a copy consists of, in this order: for each keyspace its name and its rows, then the end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Keyspace(String),
    Row(Vec<u8>, Vec<u8>),
    /// All was there. With the newest offset that was given when the copy was made.
    End(u64),
}

/// A moment of a store, which changes nothing any more. What is dropped meanwhile stays on the disk until this goes.
pub(crate) struct Moment {
    keyspaces: Vec<(String, Keyspace)>,
    snapshot: Snapshot,
    head: u64,
}

impl Moment {
    /// Of a store that nobody writes to while this is made.
    pub(crate) fn of(disk: &Disk, head: u64) -> fjall::Result<Self> {
        let mut names = disk.db.list_keyspace_names();
        names.sort();
        let mut keyspaces = Vec::with_capacity(names.len());
        for name in names {
            keyspaces.push((name.to_string(), disk.db.keyspace(&name, crate::disk::options)?));
        }
        Ok(Self { keyspaces, snapshot: disk.db.snapshot(), head })
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = fjall::Result<Part>> {
        let rows = self.keyspaces.iter().flat_map(|(name, keyspace)| {
            let rows = self.snapshot.iter(keyspace).map(|row| {
                let (key, value) = row.into_inner()?;
                Ok(Part::Row(key.to_vec(), value.to_vec()))
            });
            std::iter::once(Ok(Part::Keyspace(name.clone()))).chain(rows)
        });
        rows.chain(std::iter::once(Ok(Part::End(self.head))))
    }

    /// Sends all to whoever asked for it. What cannot be read is told instead of the rest.
    pub(crate) fn send(&self, to: impl Write) -> io::Result<()> {
        let mut to = BufWriter::with_capacity(64 << 10, to);
        to.write_all(GREETING)?;
        for part in self.parts() {
            match part {
                Ok(part) => write_part(&mut to, &part)?,
                Err(error) => return say_why_not(to, &error.to_string()),
            }
        }
        to.flush()
    }
}

/// Tells somebody who asked for a copy why there is none.
pub(crate) fn refuse(mut to: impl Write, why: &str) -> io::Result<()> {
    to.write_all(GREETING)?;
    say_why_not(to, why)
}

fn say_why_not(mut to: impl Write, why: &str) -> io::Result<()> {
    write_text(&mut to, b'!', why.as_bytes())?;
    to.flush()
}

fn write_part(to: &mut impl Write, part: &Part) -> io::Result<()> {
    match part {
        Part::Keyspace(name) => write_text(to, b'k', name.as_bytes()),
        Part::Row(key, value) => {
            write_text(to, b'r', key)?;
            to.write_all(&length(value)?)?;
            to.write_all(value)
        }
        Part::End(head) => {
            to.write_all(b"e")?;
            to.write_all(&head.to_be_bytes())
        }
    }
}

fn write_text(to: &mut impl Write, tag: u8, text: &[u8]) -> io::Result<()> {
    to.write_all(&[tag])?;
    to.write_all(&length(text)?)?;
    to.write_all(text)
}

fn length(bytes: &[u8]) -> io::Result<[u8; 4]> {
    let length = u32::try_from(bytes.len()).map_err(|_| invalid("a row is too long"))?;
    Ok(length.to_be_bytes())
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// The parts that somebody sends. After the end, or an error, there is none.
pub(crate) struct Received<R> {
    from: BufReader<R>,
    is_over: bool,
}

impl<R: Read> Received<R> {
    pub(crate) fn new(from: R) -> io::Result<Self> {
        let mut from = BufReader::with_capacity(64 << 10, from);
        let mut greeting = [0; GREETING.len()];
        from.read_exact(&mut greeting)?;
        if greeting != *GREETING {
            return Err(invalid("who has the store sends copies of another form: it is of another version"));
        }
        Ok(Self { from, is_over: false })
    }

    fn read(&mut self) -> io::Result<Part> {
        let mut tag = [0];
        self.from.read_exact(&mut tag)?;
        match tag[0] {
            b'k' => self.text().map(Part::Keyspace),
            b'r' => Ok(Part::Row(self.bytes()?, self.bytes()?)),
            b'e' => {
                let mut head = [0; 8];
                self.from.read_exact(&mut head)?;
                Ok(Part::End(u64::from_be_bytes(head)))
            }
            b'!' => Err(io::Error::other(self.text()?)),
            other => Err(invalid(format!("a part of no kind: {other}"))),
        }
    }

    fn text(&mut self) -> io::Result<String> {
        String::from_utf8(self.bytes()?).map_err(|_| invalid("a name is no text"))
    }

    fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.from.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > MAX_VALUE_BYTES {
            return Err(invalid("a row is too long"));
        }
        // Grows by what has come.
        let mut bytes = Vec::new();
        self.from.by_ref().take(u64::from(length)).read_to_end(&mut bytes)?;
        if bytes.len() < length as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }
}

impl<R: Read> Iterator for Received<R> {
    type Item = io::Result<Part>;

    fn next(&mut self) -> Option<io::Result<Part>> {
        if self.is_over {
            return None;
        }
        let part = self.read().map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => invalid("it ended before all was sent"),
            _ => error,
        });
        self.is_over = !matches!(part, Ok(Part::Keyspace(_) | Part::Row(..)));
        Some(part)
    }
}

/// Bytes of all files below a folder: about what a copy of it takes.
pub(crate) fn size_of(folder: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().filter_map(|entry| {
        let about = entry.metadata().ok()?;
        // Journals are made longer than what is in them.
        Some(if about.is_dir() { size_of(&entry.path()) } else { about.blocks() * 512 })
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(parts: &[Part]) -> Vec<u8> {
        let mut bytes = GREETING.to_vec();
        for part in parts {
            write_part(&mut bytes, part).unwrap();
        }
        bytes
    }

    fn parts() -> Vec<Part> {
        vec![
            Part::Keyspace("meta".to_owned()),
            Part::Row(b"epoch".to_vec(), vec![7; 100_000]),
            Part::Row(b"empty".to_vec(), Vec::new()),
            Part::Keyspace("h.0.1".to_owned()),
            Part::End(u64::MAX),
        ]
    }

    #[test]
    fn what_is_sent_is_received() {
        let bytes = sent(&parts());
        let received: Vec<_> = Received::new(&bytes[..]).unwrap().map(|part| part.unwrap()).collect();
        assert_eq!(received, parts());
    }

    #[test]
    fn a_copy_that_is_cut_anywhere_is_no_copy() {
        let bytes =
            sent(&[Part::Keyspace("meta".into()), Part::Row(b"k".to_vec(), b"value".to_vec()), Part::End(1)]);
        for length in 0..bytes.len() {
            let Ok(received) = Received::new(&bytes[..length]) else { continue };
            let last = received.last().expect("something");
            assert!(last.is_err(), "{length}");
        }
    }

    #[test]
    fn a_refusal_is_told_and_ends_it() {
        let mut bytes = Vec::new();
        refuse(&mut bytes, "it is closing").unwrap();
        let mut received = Received::new(&bytes[..]).unwrap();
        assert_eq!(received.next().unwrap().unwrap_err().to_string(), "it is closing");
        assert!(received.next().is_none());
        assert!(Received::new(&b"HTTP/1.1 400 Bad"[..]).is_err());
        let too_long = [&GREETING[..], b"r\xff\xff\xff\xff"].concat();
        assert!(Received::new(&too_long[..]).unwrap().next().unwrap().is_err());
    }
}
