//! `POST /v1/publish` with NDJSON: one item per line, answered as they are taken.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::Body as HttpBody;
use http_edge::{Body, BodyError, BoxError, DEFAULT_BODY_STALL, Intake, PipeIo, Problem, Unfinished, pipe};
use intake::{Publisher, Turn, key_at};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use super::items::Desk;
use crate::config::Config;
use crate::error::Error;

/// The results of a body that is still being sent: one line for each line. A line longer than `max_request_bytes`, or a
/// silent client, ends the answer with an error line. `key` is the request's own idempotency key; with a line's number
/// it stands for that of an item without one.
///
/// The body is read in a task of its own, also while nobody reads the results: most clients send a whole request before
/// they look at its answer. Up to `max_result_bytes` of results wait; then the body waits too, as nothing else bounds
/// them. They count as unfinished as long as they wait, as does a line that has begun; a line must come as fast as a
/// whole body must.
pub(crate) fn publish_lines<B>(
    desk: Arc<Desk>,
    config: &Config,
    publisher: Publisher,
    key: Option<String>,
    body: B,
) -> Body
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (results, answer) = pipe(config.max_result_bytes);
    let lines = Lines {
        desk,
        intake: config.intake.clone(),
        max_line_bytes: config.max_request_bytes,
        publisher,
        key,
        number: 0,
        line: BytesMut::new(),
        scanned: 0,
        turn: Turn::new(),
        unfinished: Unfinished::default(),
        line_began: Instant::now(),
    };
    tokio::spawn(async move {
        // It fails once the client is gone; there is nobody to tell.
        let _ = lines.publish_all(body, results).await;
    });
    answer
}

struct Lines {
    desk: Arc<Desk>,
    intake: Intake,
    max_line_bytes: usize,
    publisher: Publisher,
    key: Option<String>,
    /// Items so far.
    number: usize,
    /// What came and is not yet a whole line.
    line: BytesMut,
    /// How much of it is known to hold no line break.
    scanned: usize,
    turn: Turn,
    unfinished: Unfinished,
    line_began: Instant,
}

/// Lines and bytes of results after which those results are written.
const PAGE_LINES: usize = 64;
const PAGE_BYTES: usize = 64 << 10;

impl Lines {
    /// Reads `body` to its end and writes the results as they come.
    async fn publish_all<B>(mut self, body: B, mut results: PipeIo) -> io::Result<()>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let mut body = pin!(body);
        loop {
            let (mut out, before) = (Vec::new(), self.line.len());
            let more = self.publish_waiting(&mut out).await;
            self.write(&mut results, &out).await?;
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            if self.line.len() < before {
                // The beginning of the next line would keep all that was read before it.
                self.line = BytesMut::from(&self.line[..]);
                self.line_began = Instant::now();
            }
            let data = match self.next(body.as_mut(), &results).await {
                Ok(Some(data)) => data,
                Ok(None) => {
                    let mut out = Vec::new();
                    let line = std::mem::take(&mut self.line).freeze();
                    self.publish(&line, &mut out).await;
                    self.write(&mut results, &out).await?;
                    return results.shutdown().await;
                }
                Err(error) => return end(error, results).await,
            };
            let max = self.max_line_bytes;
            if self.line.len() + data.len() > max && !data.contains(&b'\n') {
                return end(BodyError::TooLarge { max }, results).await;
            }
            if self.line.is_empty() {
                self.line_began = Instant::now();
            }
            self.line.extend_from_slice(&data);
        }
    }

    /// What comes next of the body; `None` at its end.
    async fn next<B>(&mut self, mut body: Pin<&mut B>, results: &PipeIo) -> Result<Option<Bytes>, BodyError>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let intake = &self.intake;
        let (now, received) = (Instant::now(), self.line.len());
        let stalled_at = now + DEFAULT_BODY_STALL;
        self.unfinished.hold(intake, received + results.waiting_bytes(), now.into_std());
        self.unfinished.restart(self.line_began.into_std());
        let late_at = self.unfinished.due(intake, received).filter(|_| received > 0).map(Instant::from_std);
        let mut timer = pin!(sleep_until(late_at.map_or(stalled_at, |at| at.min(stalled_at))));
        poll_fn(|cx| {
            while let Poll::Ready(frame) = body.as_mut().poll_frame(cx) {
                match frame {
                    None => return Poll::Ready(Ok(None)),
                    Some(Err(error)) => return Poll::Ready(Err(BodyError::Io(error.into()))),
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Poll::Ready(Ok(Some(data)));
                        }
                    }
                }
            }
            while self.unfinished.poll_shed(cx).is_ready() {
                let held = received + results.waiting_bytes();
                if held > http_edge::FREE_BYTES {
                    return Poll::Ready(Err(BodyError::Shed));
                }
                // The client has read meanwhile what it was counted for.
                self.unfinished.finish();
            }
            ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            if now >= stalled_at || !self.unfinished.is_late(intake, received, now.into_std()) {
                return Poll::Ready(Err(BodyError::Stalled(DEFAULT_BODY_STALL)));
            }
            Poll::Ready(Err(BodyError::TooSlow { received, after: now - self.line_began }))
        })
        .await
    }

    /// Writes results, or gives all up if their reader is the one that must make room.
    async fn write(&mut self, results: &mut PipeIo, mut out: &[u8]) -> io::Result<()> {
        poll_fn(|cx| {
            while !out.is_empty() {
                match Pin::new(&mut *results).poll_write(cx, out)? {
                    Poll::Ready(written) => out = out.get(written..).unwrap_or_default(),
                    Poll::Pending => {
                        let held = self.line.len() + results.waiting_bytes();
                        self.unfinished.hold(&self.intake, held, Instant::now().into_std());
                        ready!(self.unfinished.poll_shed(cx));
                        results.discard();
                        return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Publishes whole lines that are there, up to a page of results; false if none is left.
    async fn publish_waiting(&mut self, out: &mut Vec<u8>) -> bool {
        for _ in 0..PAGE_LINES {
            if out.len() > PAGE_BYTES {
                break;
            }
            let Some(end) = memchr::memchr(b'\n', self.line.get(self.scanned..).unwrap_or_default()) else {
                self.scanned = self.line.len();
                return false;
            };
            let line = self.line.split_to(self.scanned + end + 1).freeze();
            self.scanned = 0;
            self.publish(&line, out).await;
        }
        true
    }

    async fn publish(&mut self, line: &Bytes, out: &mut Vec<u8>) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let key = self.key.as_deref().map(|key| key_at(key, self.number));
        self.number += 1;
        // The line is a slice of what is being read into, so its payload counts as part of something larger.
        let line = Bytes::copy_from_slice(line);
        let result = self.desk.publish_line(&self.publisher, key, &line, &mut self.turn).await;
        out.extend_from_slice(&result);
        out.push(b'\n');
    }
}

/// The last line: why no more will be taken.
async fn end(error: BodyError, mut results: PipeIo) -> io::Result<()> {
    if matches!(error, BodyError::Shed) && results.waiting_bytes() > http_edge::FREE_BYTES {
        // They are what there is no room for, and their reader does not read.
        results.discard();
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let problem = Problem::from(Error::Body(error));
    results.write_all(format!("{{\"error\":{}}}\n", problem.to_json()).as_bytes()).await?;
    results.shutdown().await
}
