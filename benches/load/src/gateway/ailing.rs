//! Many clients of a function that is ill: each sends, waits until it is told anything, and sends again a second later.
//! One thread for all.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::clients::WebSocket;

/// What clients were told, and how often.
pub(super) type Seen = BTreeMap<String, u64>;

/// Clients that send until it is dropped or ended.
pub(super) struct Ailing {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

impl Ailing {
    /// Connects so many.
    ///
    /// # Errors
    /// When one is not let in.
    pub(super) fn start(address: SocketAddr, path: &str, count: usize) -> io::Result<Self> {
        let mut open = Vec::with_capacity(count);
        for _ in 0..count {
            let client = WebSocket::connect(address, path)?;
            client.will_not_wait()?;
            open.push(Some(client));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let thread = Some(thread::spawn(move || run(open, &ended)));
        Ok(Self { stop, thread })
    }

    /// What all of them have been told.
    pub(super) fn end(mut self) -> Seen {
        self.stop.store(true, Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Ailing {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// How long a client waits before it sends again.
const PAUSE: Duration = Duration::from_secs(1);

fn run(mut open: Vec<Option<WebSocket>>, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::new();
    // When each sends next; those without wait for what they are told. They begin one after the other.
    let (now, count) = (Instant::now(), open.len().max(1));
    let mut due: Vec<_> = (0..count).map(|at| Some(now + PAUSE.mul_f64(at as f64 / count as f64))).collect();
    while !stop.load(Relaxed) {
        let now = Instant::now();
        for (place, due) in open.iter_mut().zip(&mut due) {
            let Some(client) = place else { continue };
            let outcome = match due {
                Some(due) if *due > now => continue,
                Some(_) => client.send().map(|()| None),
                None => client.heard(),
            };
            match outcome {
                Ok(Some(told)) => {
                    *seen.entry(told).or_default() += 1;
                    *due = Some(now + PAUSE);
                }
                Ok(None) => *due = None,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    *seen.entry(format!("ended: {}", error.kind())).or_default() += 1;
                    *place = None;
                }
            }
        }
        // They are not what is measured.
        thread::sleep(Duration::from_millis(5));
    }
    let waiting = due.iter().zip(&open).filter(|(due, place)| due.is_none() && place.is_some()).count();
    if waiting > 0 {
        seen.insert("waits still".to_owned(), waiting as u64);
    }
    seen
}
