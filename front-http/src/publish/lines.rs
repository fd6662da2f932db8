//! `POST /v1/publish` with NDJSON: one item per line, answered as they are taken.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body::Body as HttpBody;
use http_edge::{Body, BodyError, BoxError, DEFAULT_BODY_STALL, Problem, pipe};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::items::{key_at, publish_line};
use super::{Publisher, Turn};
use crate::error::Error;
use crate::front::Shared;

/// The results of a body that is still being sent: one line for each line. A line longer than `max_request_bytes`, or a silent
/// client, ends the answer with an error line. `key` is the request's own idempotency key; with a line's number it stands for
/// that of an item without one.
///
/// The body is read in a task of its own, also while nobody reads the results: most clients send a whole request before they
/// look at its answer. Up to `max_result_bytes` of results wait; then the body waits too, as nothing else bounds them.
pub(crate) fn publish_lines<B>(
    shared: Arc<Shared>,
    publisher: Publisher,
    key: Option<String>,
    body: B,
) -> Body
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (results, answer) = pipe(shared.config.max_result_bytes);
    let lines =
        Lines { shared, publisher, key, number: 0, line: BytesMut::new(), scanned: 0, turn: Turn::new() };
    tokio::spawn(async move {
        // It fails once the client is gone; there is nobody to tell.
        let _ = lines.publish_all(body, results).await;
    });
    answer
}

struct Lines {
    shared: Arc<Shared>,
    publisher: Publisher,
    key: Option<String>,
    /// Items so far.
    number: usize,
    /// What came and is not yet a whole line.
    line: BytesMut,
    /// How much of it is known to hold no line break.
    scanned: usize,
    turn: Turn,
}

/// Lines and bytes of results after which those results are written.
const PAGE_LINES: usize = 64;
const PAGE_BYTES: usize = 64 << 10;

impl Lines {
    /// Reads `body` to its end and writes the results as they come.
    async fn publish_all<B>(mut self, body: B, mut results: impl AsyncWriteExt + Unpin) -> std::io::Result<()>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let mut body = pin!(body);
        loop {
            let mut out = Vec::new();
            if self.publish_waiting(&mut out).await {
                results.write_all(&out).await?;
                tokio::task::yield_now().await;
                continue;
            }
            results.write_all(&out).await?;
            let next = poll_fn(|cx| body.as_mut().poll_frame(cx).map_err(Into::into));
            let frame = match timeout(DEFAULT_BODY_STALL, next).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return end(BodyError::Io(error), results).await,
                Err(_) => return end(BodyError::Stalled(DEFAULT_BODY_STALL), results).await,
                Ok(None) => {
                    let mut out = Vec::new();
                    let line = std::mem::take(&mut self.line).freeze();
                    self.publish(&line, &mut out).await;
                    results.write_all(&out).await?;
                    return results.shutdown().await;
                }
            };
            let Ok(data) = frame.into_data() else { continue };
            let max = self.shared.config.max_request_bytes;
            if self.line.len() + data.len() > max && !data.contains(&b'\n') {
                return end(BodyError::TooLarge { max }, results).await;
            }
            self.line.extend_from_slice(&data);
        }
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
        let result = publish_line(&self.shared, &self.publisher, key, &line, &mut self.turn).await;
        out.extend_from_slice(&result);
        out.push(b'\n');
    }
}

/// The last line: why no more will be taken.
async fn end(error: BodyError, mut results: impl AsyncWriteExt + Unpin) -> std::io::Result<()> {
    let problem = Problem::from(Error::Body(error));
    results.write_all(format!("{{\"error\":{}}}\n", problem.to_json()).as_bytes()).await?;
    results.shutdown().await
}
