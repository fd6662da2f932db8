//! One who watches: a stream of events, of which a slow reader gets the newest only.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{Authenticator, Principal, unix_ms};
use bytes::Bytes;
use http_edge::PipeIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until, timeout};

/// How long a reader may take nothing before it is cut off, so that it frees its place.
const STALLED: Duration = Duration::from_secs(10);
/// When a reader that is sent away may come back.
const RETRY: Duration = Duration::from_secs(2);
/// As good as never.
const FAR: Duration = Duration::from_secs(365 * 24 * 3_600);

pub(super) struct Watcher {
    pub(super) latest: watch::Receiver<Option<Bytes>>,
    pub(super) closing: watch::Receiver<bool>,
    pub(super) authenticator: Arc<dyn Authenticator>,
    pub(super) principal: Principal,
    pub(super) _place: OwnedSemaphorePermit,
}

impl Watcher {
    /// Writes figures until the client is gone, its credentials are over, or the front shuts down.
    pub(super) async fn run(mut self, mut io: PipeIo) -> io::Result<()> {
        let left = self.principal.expires_at_ms().map(|end| end.saturating_sub(unix_ms()));
        let expires = Instant::now() + left.map_or(FAR, Duration::from_millis).min(FAR);
        loop {
            let figures = self.latest.borrow_and_update().clone();
            if let Some(figures) = figures {
                // While it is written newer ones replace each other.
                write(&mut io, &[b"data: ", &*figures, b"\n\n"].concat()).await?;
            }
            if !self.authenticator.still_holds(&self.principal) {
                return leave("rights changed, reconnect", io).await;
            }
            let mut gone = [0; 1];
            tokio::select! {
                changed = self.latest.changed() => {
                    if changed.is_err() {
                        return leave("shutting down", io).await;
                    }
                }
                _ = self.closing.changed() => return leave("shutting down", io).await,
                () = sleep_until(expires) => return leave("credentials expired, reconnect with new ones", io).await,
                _ = io.read(&mut gone) => return Ok(()),
            }
        }
    }
}

async fn write(io: &mut PipeIo, bytes: &[u8]) -> io::Result<()> {
    timeout(STALLED, io.write_all(bytes)).await?
}

/// Says why, as the event streams of channels do, and ends.
async fn leave(why: &str, mut io: PipeIo) -> io::Result<()> {
    write(&mut io, format!(": {why}\nretry: {}\n", RETRY.as_millis()).as_bytes()).await?;
    io.shutdown().await
}
