//! What is told to other nodes by code that may not wait: in its order, and with a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use cluster::Control;
use tokio::sync::mpsc;

/// Most bytes of notices that wait for NATS.
const MAX_BYTES: usize = 16 << 20;

/// How much one counts beside its bytes.
const OVERHEAD: usize = 64;

/// Takes notices, and says at once whether there is room.
pub(super) struct Notices {
    to_tell: mpsc::UnboundedSender<Vec<u8>>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    bytes: AtomicUsize,
    /// Some were not taken since this was looked at last.
    has_overflowed: AtomicBool,
}

/// Tells them.
pub(super) struct Teller {
    coming: mpsc::UnboundedReceiver<Vec<u8>>,
    state: Arc<State>,
}

pub(super) fn notices() -> (Notices, Teller) {
    let (to_tell, coming) = mpsc::unbounded_channel();
    let state = Arc::<State>::default();
    (Notices { to_tell, state: Arc::clone(&state) }, Teller { coming, state })
}

impl Notices {
    /// Has one told behind those before it; one for which there is no room is lost.
    pub(super) fn tell(&self, notice: Vec<u8>) {
        let weight = notice.len() + OVERHEAD;
        if self.state.bytes.fetch_add(weight, Relaxed) + weight > MAX_BYTES {
            self.state.bytes.fetch_sub(weight, Relaxed);
            self.state.has_overflowed.store(true, Relaxed);
            return;
        }
        // Whoever tells them is there as long as this is.
        _ = self.to_tell.send(notice);
    }
}

impl Teller {
    /// Tells other nodes until there is nobody any more who has something to tell. Where some were lost, that is logged, and
    /// `again` has what others must know told anew.
    pub(super) async fn run(mut self, control: Control, service: &'static str, again: impl Fn() + Send) {
        while let Some(notice) = self.coming.recv().await {
            if let Err(error) = control.tell(service, &notice).await {
                tracing::warn!(target: "fanwire::cluster", service, %error, "other nodes are not told something");
            }
            self.state.bytes.fetch_sub(notice.len() + OVERHEAD, Relaxed);
            if self.coming.is_empty() && self.state.has_overflowed.swap(false, Relaxed) {
                let error = "more waited for NATS than may";
                tracing::warn!(target: "fanwire::cluster", service, %error, "other nodes are not told something");
                again();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_much_waits_and_the_rest_is_noted() {
        let (notices, mut teller) = notices();
        for _ in 0..17 {
            notices.tell(vec![0; 1 << 20]);
        }
        assert_eq!(
            std::iter::from_fn(|| teller.coming.try_recv().ok()).count(),
            15,
            "each counts a little more"
        );
        assert!(teller.state.has_overflowed.load(Relaxed) && teller.state.bytes.load(Relaxed) <= MAX_BYTES);
    }
}
