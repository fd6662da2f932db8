//! `POST /v1/publish` with NDJSON: one item per line, answered as they are taken.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use broker_core::Principal;
use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use http_edge::{Body, BodyError, BoxError, DEFAULT_BODY_STALL, Problem};
use tokio::time::{Instant, Sleep, sleep};

use super::items::{key_at, publish_line};
use crate::error::Error;
use crate::front::Shared;

/// The results of a body that is still being sent: one line for each line. The request body is read no faster than the
/// results are; a line longer than `max_request_bytes`, or a silent client, ends the answer with an error line.
/// `key` is the request's own idempotency key; with a line's number it stands for that of an item without one.
pub(crate) fn publish_lines<B>(
    shared: Arc<Shared>,
    principal: Principal,
    key: Option<String>,
    body: B,
) -> Body
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Body::stream(Lines {
        shared,
        principal,
        key,
        number: 0,
        body: Some(Box::pin(body)),
        line: BytesMut::new(),
        scanned: 0,
        stall: Box::pin(sleep(DEFAULT_BODY_STALL)),
        progressed: false,
    })
}

struct Lines<B> {
    shared: Arc<Shared>,
    principal: Principal,
    key: Option<String>,
    /// Items so far.
    number: usize,
    /// Until it ends or fails.
    body: Option<Pin<Box<B>>>,
    /// What came and is not yet a whole line.
    line: BytesMut,
    /// How much of it is known to hold no line break.
    scanned: usize,
    stall: Pin<Box<Sleep>>,
    progressed: bool,
}

/// Lines published in one turn, so that one client's stream does not keep a worker to itself.
const TURN: usize = 64;

impl<B> Lines<B>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Publishes whole lines that are there, up to a turn of them; false if none is left.
    fn publish_waiting(&mut self, out: &mut Vec<u8>) -> bool {
        for _ in 0..TURN {
            let Some(end) = memchr::memchr(b'\n', self.line.get(self.scanned..).unwrap_or_default()) else {
                self.scanned = self.line.len();
                return false;
            };
            let line = self.line.split_to(self.scanned + end + 1).freeze();
            self.scanned = 0;
            self.publish(&line, out);
        }
        true
    }

    fn publish(&mut self, line: &Bytes, out: &mut Vec<u8>) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let key = self.key.as_deref().map(|key| key_at(key, self.number));
        self.number += 1;
        // The line is a slice of what is being read into, so its payload counts as part of something larger.
        out.extend_from_slice(&publish_line(
            &self.shared,
            &self.principal,
            key,
            &Bytes::copy_from_slice(line),
        ));
        out.push(b'\n');
    }

    fn fail(&mut self, error: BodyError, out: &mut Vec<u8>) {
        self.body = None;
        self.line = BytesMut::new();
        let problem = Problem::from(Error::Body(error));
        out.extend_from_slice(format!("{{\"error\":{}}}\n", problem.to_json()).as_bytes());
    }
}

impl<B> HttpBody for Lines<B>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let mut out = Vec::new();
        loop {
            let more = this.publish_waiting(&mut out);
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
            if more {
                continue;
            }
            let Some(body) = this.body.as_mut() else { return Poll::Ready(None) };
            match body.as_mut().poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    this.progressed = true;
                    let Ok(data) = frame.into_data() else { continue };
                    let max = this.shared.config.max_request_bytes;
                    if this.line.len() + data.len() > max && !data.contains(&b'\n') {
                        this.fail(BodyError::TooLarge { max }, &mut out);
                    } else {
                        this.line.extend_from_slice(&data);
                    }
                }
                Poll::Ready(Some(Err(error))) => this.fail(BodyError::Io(error.into()), &mut out),
                Poll::Ready(None) => {
                    this.body = None;
                    let line = std::mem::take(&mut this.line).freeze();
                    this.scanned = 0;
                    this.publish(&line, &mut out);
                }
                Poll::Pending => {
                    if std::mem::take(&mut this.progressed) {
                        this.stall.as_mut().reset(Instant::now() + DEFAULT_BODY_STALL);
                    }
                    match this.stall.as_mut().poll(cx) {
                        Poll::Ready(()) => this.fail(BodyError::Stalled(DEFAULT_BODY_STALL), &mut out),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
    }
}
