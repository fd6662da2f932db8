//! A bare append log: records behind their lengths in one file, and one thread that writes all that waits, waits for the
//! disk, and answers. What it cannot do is read, drop, and find a channel.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::inside::PAYLOAD_BYTES;
use crate::tally::Figures;

/// As many as the store puts into a batch.
const BATCH: usize = 512;

type Record = (Vec<u8>, oneshot::Sender<()>);

fn write(mut file: File, records: &Receiver<Record>) -> std::io::Result<()> {
    let (mut bytes, mut waiting) = (Vec::new(), Vec::new());
    while let Ok(first) = records.recv() {
        for (record, done) in std::iter::once(first).chain(records.try_iter()).take(BATCH) {
            bytes.extend_from_slice(&(record.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&record);
            waiting.push(done);
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
        bytes.clear();
        for done in waiting.drain(..) {
            _ = done.send(());
        }
    }
    Ok(())
}

pub(crate) async fn append(below: &Path, in_flight: usize, span: Duration) -> Outcome<Figures> {
    let folder = tempfile::tempdir_in(below)?;
    let file = File::create(folder.path().join("log"))?;
    let (sender, records): (SyncSender<Record>, _) = sync_channel(8_192);
    let thread = std::thread::spawn(move || write(file, &records));
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
