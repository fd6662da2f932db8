//! Bytes both ways, until one side ends or nothing has passed for too long. An idle pair holds no buffer.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::activity::Place;

/// Read at once, on each thread.
const SCRATCH_BYTES: usize = 32 << 10;

/// Pieces that pass before other tasks have their turn.
const AT_ONCE: usize = 16;

/// How long one side may go on after the other has ended its own.
const LINGER: Duration = Duration::from_secs(10);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    /// What was read and is not written yet.
    left: Vec<u8>,
    written: usize,
    /// Something was written since the last flush.
    is_dirty: bool,
    is_ended: bool,
    is_over: bool,
}

impl Way {
    /// Passes on what there is. Ready once the side that is read from has ended and the other one was told.
    fn poll(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        place: &Place,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..AT_ONCE {
            while let Some(rest) = self.left.get(self.written..).filter(|rest| !rest.is_empty()) {
                match ready!(Pin::new(&mut *to).poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    written => self.written += written,
                }
                self.is_dirty = true;
            }
            if !self.left.is_empty() {
                (self.left, self.written) = (Vec::new(), 0);
            }
            if self.is_ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.is_over = true;
                return Poll::Ready(Ok(()));
            }
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let mut room = ReadBuf::new(scratch);
                let read = Pin::new(&mut *from).poll_read(cx, &mut room);
                let bytes = room.filled();
                if !matches!(read, Poll::Ready(Ok(()))) || bytes.is_empty() {
                    return read.map_ok(|()| false);
                }
                place.touch();
                // Usually there is room for all of it.
                match Pin::new(&mut *to).poll_write(cx, bytes) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(written)) => {
                        self.left.extend_from_slice(bytes.get(written..).unwrap_or_default())
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => self.left.extend_from_slice(bytes),
                }
                self.is_dirty = true;
                Poll::Ready(Ok(true))
            });
            match read {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => self.is_ended = true,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if self.is_dirty {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.is_dirty = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Passes bytes both ways until it is over, or nothing passed for so long, or the server stops.
pub(crate) async fn splice(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut origin: impl AsyncRead + AsyncWrite + Unpin,
    idle: Option<Duration>,
    place: Place,
    mut stopping: watch::Receiver<bool>,
) {
    let (mut up, mut down) = (Way::default(), Way::default());
    let mut half = None;
    loop {
        // Looked at after it has passed, not moved by each byte.
        let due = match (half, idle) {
            (Some(end), _) => Some(end),
            (None, Some(idle)) => Some(Instant::now() + idle.saturating_sub(place.idle())),
            (None, None) => None,
        };
        let pass = std::future::poll_fn(|cx| {
            let up = up.poll(&mut client, &mut origin, &place, cx)?;
            let down = down.poll(&mut origin, &mut client, &place, cx)?;
            match (up.is_ready(), down.is_ready()) {
                (true, true) => Poll::Ready(Ok::<_, io::Error>(true)),
                (false, false) => Poll::Pending,
                // The other one is given a while.
                _ if half.is_some() => Poll::Pending,
                _ => Poll::Ready(Ok(false)),
            }
        });
        tokio::select! {
            passed = pass => match passed {
                Ok(false) => half = Some(Instant::now() + LINGER),
                Ok(true) | Err(_) => return,
            },
            () = async { match due { Some(due) => sleep_until(due).await, None => std::future::pending().await } } => {
                if half.is_some() || idle.is_some_and(|idle| place.idle() >= idle) {
                    return;
                }
            }
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::activity::Activity;
    use crate::config::{Dialect, Route};

    fn place() -> Place {
        let route = Route::new("a", Dialect::Proxy, "/".parse().unwrap(), vec!["http://a".parse().unwrap()]);
        Activity::start(&route, &gateway::client::Caller::new(None)).enter().unwrap()
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_through_pipes_that_are_narrow_and_ends_are_told() {
        let (mut client, near) = duplex(7);
        let (far, mut origin) = duplex(1000);
        let (_keep, stopping) = watch::channel(false);
        let task = tokio::spawn(splice(near, far, None, place(), stopping));
        let sent: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
        let (up, down) = (sent.clone(), sent.clone());
        let of_client = tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(&mut client);
            let mut got = Vec::new();
            let write = async {
                writer.write_all(&up).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let (_, read) = tokio::join!(write, reader.read_to_end(&mut got));
            read.unwrap();
            got
        });
        let (mut reader, mut writer) = tokio::io::split(&mut origin);
        let mut got = Vec::new();
        let write = async {
            writer.write_all(&down).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let (_, read) = tokio::join!(write, reader.read_to_end(&mut got));
        read.unwrap();
        assert_eq!(got, sent);
        assert_eq!(of_client.await.unwrap(), sent);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_pair_on_which_nothing_passes_is_closed() {
        let (mut client, near) = duplex(100);
        let (far, mut origin) = duplex(100);
        let (_keep, stopping) = watch::channel(false);
        tokio::spawn(splice(near, far, Some(Duration::from_millis(1)), place(), stopping));
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        origin.read_to_end(&mut got).await.unwrap();
        assert!(got.is_empty());
    }
}
