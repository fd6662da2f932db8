//! The task that looks whether the streams are there, and are those that they were.
//!
//! Where the first one is not, nothing is taken for durable channels any more until the node is started again: what it has in
//! memory, and ids that clients have, are of a stream that is gone. The second one is made anew by the nodes, and so is that
//! of sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::sessions::Sessions;
use super::stream::{Look, Of, Streams};
use crate::stats::Standing;

const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How soon it is looked again where something is wrong.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A server that has just started may not know of streams yet: for so long none is given up.
const GONE_FOR: Duration = Duration::from_secs(10);

/// How the streams are.
#[derive(Debug)]
pub(crate) struct Health {
    kept: AtomicU8,
    retained: AtomicU8,
    sessions: AtomicU8,
    /// The second one was not there, or was another one.
    lost_retained: AtomicBool,
    /// The third one.
    lost_sessions: AtomicBool,
}

impl Health {
    /// All were there a moment ago.
    pub(crate) fn of_open_streams() -> Self {
        let there = || AtomicU8::new(Standing::There.code());
        let (kept, retained, sessions) = (there(), there(), there());
        let (lost_retained, lost_sessions) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { kept, retained, sessions, lost_retained, lost_sessions }
    }

    pub(crate) fn of(&self, of: Of) -> Standing {
        Standing::from_code(self.place(of).load(Ordering::Relaxed))
    }

    /// Whether what is retained may not be all that there was.
    pub(crate) fn has_lost_retained(&self) -> bool {
        self.lost_retained.load(Ordering::Relaxed)
    }

    /// Whether what was recorded of sessions that no node had is lost.
    pub(crate) fn has_lost_sessions(&self) -> bool {
        self.lost_sessions.load(Ordering::Relaxed)
    }

    fn place(&self, of: Of) -> &AtomicU8 {
        match of {
            Of::Kept => &self.kept,
            Of::Retained => &self.retained,
            Of::Sessions => &self.sessions,
        }
    }

    fn note(&self, of: Of, standing: Standing) {
        self.place(of).store(standing.code(), Ordering::Relaxed);
    }
}

/// What was seen of one stream.
#[derive(Debug, Default)]
struct Seen {
    gone_since: Option<Instant>,
}

impl Seen {
    fn judge(&mut self, look: Look, epoch: u64, now: Instant) -> Standing {
        match look {
            Look::Stands(reach) if reach.epoch == epoch => {
                self.gone_since = None;
                Standing::There
            }
            Look::Stands(_) => Standing::Lost,
            Look::Gone => {
                let since = *self.gone_since.get_or_insert(now);
                let is_over = now.saturating_duration_since(since) >= GONE_FOR;
                if is_over { Standing::Lost } else { Standing::Silent }
            }
            // Not any nearer to its end: who says nothing says nothing of the stream either.
            Look::Silent => Standing::Silent,
        }
    }
}

pub(crate) async fn run(sessions: Arc<Sessions>, health: Arc<Health>) {
    let (streams, queue) = (&sessions.streams, &sessions.queue);
    let (mut kept, mut retained, mut of_sessions) = (Seen::default(), Seen::default(), Seen::default());
    let mut retained_epoch = streams.retained_epoch;
    while !queue.is_lost() {
        let now = Instant::now();
        let first = kept.judge(streams.look(Of::Kept).await, streams.epoch, now);
        health.note(Of::Kept, first);
        if first == Standing::Lost {
            queue.lose();
            break;
        }
        let look = streams.look(Of::Retained).await;
        let second = retained.judge(look, retained_epoch, now);
        health.note(Of::Retained, second);
        if second == Standing::Lost {
            lose_retained(streams, &health);
            if let Look::Stands(reach) = look {
                retained_epoch = reach.epoch;
            } else if streams.remake_retained().await {
                // The next look finds another one, which is the same loss.
                retained = Seen::default();
            }
        }
        let third = tend_sessions(&sessions, &mut of_sessions, &health, now).await;
        if [first, second, third] == [Standing::There; 3] {
            tokio::select! {
                () = queue.doubt.notified() => {}
                () = streams.doubt.notified() => {}
                () = sleep(LOOK_EVERY) => {}
            }
        } else {
            sleep(LOOK_AGAIN).await;
        }
    }
    health.note(Of::Kept, Standing::Lost);
}

/// Looks at the stream of sessions. While it is gone no session is given to anybody, and nothing is recorded; it is made
/// anew, and then what nodes have of sessions is written there.
async fn tend_sessions(sessions: &Arc<Sessions>, seen: &mut Seen, health: &Health, now: Instant) -> Standing {
    let (streams, life) = (&sessions.streams, &sessions.streams.session_life);
    let stream = streams.node.subjects.session_stream();
    let look = streams.look(Of::Sessions).await;
    let standing = seen.judge(look, life.epoch(), now);
    health.note(Of::Sessions, standing);
    match (standing, look) {
        (Standing::There, Look::Stands(reach)) if life.find(reach.last) => {
            tracing::info!(stream, "the stream of MQTT sessions is there again");
        }
        (Standing::Silent, Look::Gone) if life.miss() => {
            tracing::warn!(
                stream,
                "the stream of MQTT sessions is not there: no session is given to a client"
            );
        }
        (Standing::Lost, _) => {
            if !health.lost_sessions.swap(true, Ordering::Relaxed) {
                tracing::error!(
                    stream,
                    "the stream of MQTT sessions was gone: those that running nodes have are written anew, others are lost"
                );
            }
            if let Look::Stands(reach) = look {
                sessions.begin_anew(reach.epoch);
                *seen = Seen::default();
            } else if streams.remake_sessions().await {
                // The next look finds another one, which is the same loss.
                *seen = Seen::default();
            }
        }
        _ => {}
    }
    standing
}

fn lose_retained(streams: &Streams, health: &Health) {
    if !health.lost_retained.swap(true, Ordering::Relaxed) {
        tracing::error!(
            stream = streams.node.subjects.retained_stream(),
            "the stream of retained messages was gone: nodes that start from now on have those alone that the other stream has"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::Reach;
    use super::*;

    #[test]
    fn a_stream_is_given_up_when_it_is_another_one_or_is_gone_for_long() {
        let now = Instant::now();
        let stands = |epoch| Look::Stands(Reach { first: 1, last: 7, epoch });
        let mut seen = Seen::default();
        assert_eq!(seen.judge(stands(1), 1, now), Standing::There);
        assert_eq!(seen.judge(Look::Gone, 1, now), Standing::Silent);
        assert_eq!(seen.judge(Look::Silent, 1, now + 2 * GONE_FOR), Standing::Silent);
        assert_eq!(seen.judge(stands(1), 1, now + 2 * GONE_FOR), Standing::There);
        assert_eq!(seen.judge(Look::Gone, 1, now + 3 * GONE_FOR), Standing::Silent, "the time begins anew");
        assert_eq!(seen.judge(Look::Gone, 1, now + 4 * GONE_FOR), Standing::Lost);
        assert_eq!(seen.judge(stands(2), 1, now), Standing::Lost);
    }
}
