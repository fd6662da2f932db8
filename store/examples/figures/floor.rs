//! A bare append log: records behind their lengths in one file, and one thread that writes all that waits, waits for the
//! disk, and answers. What it cannot do is read, drop, and find a channel. The same with the store's database in the place
//! of the file is what any store on that database can reach.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::inside::PAYLOAD_BYTES;
use crate::tally::Figures;

/// As many as the store puts into a batch.
const BATCH: usize = 512;

type Record = (Vec<u8>, oneshot::Sender<()>);

/// Where records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    File,
    /// The database, with so many of them in each row.
    Rows(usize),
}

enum Log {
    File(File, Option<Duration>),
    Rows { db: Database, rows: Keyspace, each: usize, written: u64 },
}

impl Log {
    fn create(folder: &Path, place: Place, flush: Option<Duration>) -> Result<Self, String> {
        let text = |error: fjall::Error| error.to_string();
        Ok(match place {
            Place::File => {
                Self::File(File::create(folder.join("log")).map_err(|error| error.to_string())?, flush)
            }
            Place::Rows(each) => {
                let db = Database::builder(folder).open().map_err(text)?;
                let rows = db.keyspace("rows", KeyspaceCreateOptions::default).map_err(text)?;
                Self::Rows { db, rows, each, written: 0 }
            }
        })
    }

    fn write(&mut self, records: &[Vec<u8>]) -> Result<(), String> {
        match self {
            Self::File(file, flush) => {
                let bytes = joined(records);
                let written = file.write_all(&bytes).and_then(|()| match flush {
                    Some(flush) => {
                        std::thread::sleep(*flush);
                        Ok(())
                    }
                    None => file.sync_data(),
                });
                written.map_err(|error| error.to_string())
            }
            Self::Rows { db, rows, each, written } => {
                let mut batch = db.batch().durability(Some(PersistMode::SyncData));
                for records in records.chunks(*each) {
                    batch.insert(rows, written.to_be_bytes(), joined(records));
                    *written += records.len() as u64;
                }
                batch.commit().map_err(|error| error.to_string())
            }
        }
    }
}

fn joined(records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(records.iter().map(|record| record.len() + 4).sum());
    for record in records {
        bytes.extend_from_slice(&(record.len() as u32).to_be_bytes());
        bytes.extend_from_slice(record);
    }
    bytes
}

fn write(mut log: Log, records: &Receiver<Record>) -> Result<(), String> {
    let (mut batch, mut waiting) = (Vec::new(), Vec::new());
    while let Ok(first) = records.recv() {
        for (record, done) in std::iter::once(first).chain(records.try_iter()).take(BATCH) {
            batch.push(record);
            waiting.push(done);
        }
        log.write(&batch)?;
        batch.clear();
        for done in waiting.drain(..) {
            _ = done.send(());
        }
    }
    Ok(())
}

pub(crate) async fn append(
    below: &Path,
    place: Place,
    in_flight: usize,
    span: Duration,
    flush: Option<Duration>,
) -> Outcome<Figures> {
    let folder = tempfile::tempdir_in(below)?;
    let log = Log::create(folder.path(), place, flush)?;
    let (sender, records): (SyncSender<Record>, _) = sync_channel(8_192);
    let thread = std::thread::spawn(move || write(log, &records));
    let start = Instant::now();
    let mut writers = JoinSet::new();
    for _ in 0..in_flight {
        let sender = sender.clone();
        writers.spawn(async move {
            let mut times = Vec::new();
            while start.elapsed() < span {
                let asked = Instant::now();
                let (done, is_done) = oneshot::channel();
                // With the name of a channel, and when it was.
                sender.send((vec![0; PAYLOAD_BYTES + 32], done)).map_err(|_| "the log ended".to_owned())?;
                is_done.await.map_err(|_| "the log ended".to_owned())?;
                times.push(asked.elapsed());
            }
            Ok::<_, String>(times)
        });
    }
    drop(sender);
    let mut all = Vec::new();
    while let Some(times) = writers.join_next().await {
        all.extend(times??);
    }
    let took = start.elapsed();
    thread.join().map_err(|_| "the log panicked")??;
    Ok(Figures::of(all, took))
}
