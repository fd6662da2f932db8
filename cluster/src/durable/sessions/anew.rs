//! A stream of sessions that was made anew: each node writes the rows of those that it has there, and when all have, sessions
//! are given to clients again. What rows said of sessions that no node has is lost.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use broker_core::{Answer, Done, Fence, RecordError};
use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::{Sessions, Waiting};
use crate::control::{Control, DEADLINE};
use crate::desk::{Peer, Service};
use crate::peers::HELLO_EVERY;

/// Under this name nodes ask each other in which life of the stream their rows are.
const ANEW: &str = "sessions-anew";

/// Rows that are on their way at once.
const AT_ONCE: usize = 256;

/// So often a row is tried while NATS is there, each time for as long as any row is.
const MAX_TRIES: usize = 10;

/// By then a node that starts has heard of the others.
const FIRST_QUESTION: Duration = Duration::from_millis(HELLO_EVERY.as_millis() as u64 * 5 / 2);

const PAUSE: Duration = Duration::from_millis(200);

/// How long others are waited for. They are there, so most of that is for writing very many rows.
const WAIT_FOR: Duration = Duration::from_secs(60);

/// When a node comes to a stream that was made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// It has just started, has no sessions, and knows of nobody.
    Starting,
    Running,
}

impl Sessions {
    /// There is another stream than before.
    pub(crate) fn begin_anew(self: &Arc<Self>, epoch: u64) {
        self.streams.session_life.begin(epoch);
        tokio::spawn(Arc::clone(self).write_anew(epoch, When::Running));
    }

    /// Writes what this node has into the stream, and waits until the others have too.
    pub(crate) async fn write_anew(self: Arc<Self>, epoch: u64, when: When) {
        let life = &self.streams.session_life;
        let all: Vec<(Box<str>, u64)> = {
            let held = self.held.lock();
            let held = held.iter().filter(|(_, held)| !held.is_over);
            held.map(|(name, held)| (name.clone(), held.fence)).collect()
        };
        let mut written = 0_usize;
        for some in all.chunks(AT_ONCE) {
            let (mut left, mut tries, mut is_again) = (some.iter().collect::<Vec<_>>(), 0, false);
            while !left.is_empty() {
                if life.epoch() != epoch {
                    return;
                }
                if std::mem::replace(&mut is_again, true) {
                    sleep(PAUSE).await;
                }
                if tries >= MAX_TRIES {
                    // What is refused whatever happens, as it is too large, must not keep all others waiting.
                    self.streams.node.tell("a session was not written into the stream that was made anew");
                    break;
                }
                tries += usize::from(self.streams.node.is_linked());
                let mut writing = Vec::new();
                for one @ (name, fence) in left {
                    let (done, recorded) = Done::new();
                    self.record_again(name.clone(), Fence(*fence), done);
                    writing.push((one, recorded));
                }
                left = Vec::new();
                for (one, recorded) in writing {
                    match recorded.await {
                        Ok(Ok(())) => written += 1,
                        // It is over, or a later claim than this one's is there.
                        Ok(Err(RecordError::Fenced)) | Err(_) => {}
                        Ok(Err(_)) => left.push(one),
                    }
                }
            }
        }
        if !life.note_written(epoch) {
            return;
        }
        if when == When::Starting {
            sleep(FIRST_QUESTION).await;
        }
        if timeout(WAIT_FOR, self.until_others_have_written(epoch)).await.is_err() {
            self.streams.node.tell("a node does not write its sessions into the stream that was made anew");
        }
        if life.open(epoch) {
            tracing::info!(sessions = written, "sessions of MQTT are given to clients again");
        }
    }

    fn record_again(self: &Arc<Self>, name: Box<str>, fence: Fence, done: Done<Result<(), RecordError>>) {
        self.change(name, fence, Waiting::Recorded(done), |_| {});
    }

    async fn until_others_have_written(&self, epoch: u64) {
        let node = &self.streams.node;
        let control = Control::new(Arc::clone(node));
        for peer in control.peers() {
            while node.peers.lock().find(peer.life).is_some() && self.streams.session_life.epoch() == epoch {
                let asked = Instant::now();
                match control.ask_one(ANEW, &peer, &[]).await {
                    Ok(Some(written)) if *written == epoch.to_be_bytes() => break,
                    // One of an earlier version writes nothing, and says at once that it cannot answer.
                    Ok(None) if node.is_linked() && asked.elapsed() < DEADLINE => break,
                    _ => sleep(PAUSE).await,
                }
            }
        }
    }

    /// Has other nodes told in which life the rows of this one are.
    pub(crate) fn tell_others(self: &Arc<Self>) {
        self.streams.node.desk.serve(ANEW, Arc::new(Asked(Arc::downgrade(self))));
    }
}

struct Asked(Weak<Sessions>);

impl Service for Asked {
    fn answer(&self, _: &Peer, _: Bytes) -> Answer<'static, Option<Vec<u8>>> {
        let sessions = self.0.upgrade();
        Answer::now(sessions.map(|sessions| sessions.streams.session_life.written().to_be_bytes().to_vec()))
    }
}
