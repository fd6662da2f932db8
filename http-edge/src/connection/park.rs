//! Requests that are held for long: meanwhile their connection is a socket, without hyper and its buffers.

use std::future::{Future, pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use bytes::buf::Chain;
use bytes::{Buf, Bytes};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use link::NetStream;
use tokio::io::{AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::response_head::response_head;
use super::watch::{Answer, Claim, Then, Watch};
use crate::request::{Response, read_body};

/// The right to have a request's connection wait without hyper, as a request extension: on HTTP/1.1 connections of
/// [`serve`](crate::serve) that stay open, where [`ServeConfig::holds`](crate::ServeConfig::holds) says so.
#[derive(Clone)]
pub struct Park {
    watch: Arc<Watch>,
    request: u64,
}

impl Park {
    pub(crate) fn new(watch: Arc<Watch>, request: u64) -> Self {
        Park { watch, request }
    }

    /// Waits for an answer, without hyper unless it is there at once. The request's body must have been read to its
    /// end, and the handler return what this returns: what it would do afterwards is not done.
    ///
    /// # Cancel safety
    /// Dropping the future, as a connection does whose client is gone, drops the answer.
    pub async fn wait(self, answer: impl Future<Output = Response> + Send + 'static) -> Response {
        let mut answer: Answer = Box::pin(answer);
        let begun = poll_fn(|cx| match answer.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => Poll::Ready(None),
        });
        if let Some(response) = begun.await {
            return response;
        }
        let flushes = self.watch.flushes.load(Relaxed);
        let unclaimed = {
            let mut slot = self.watch.claim.lock();
            if slot.is_none() && self.watch.requests.load(Relaxed) == self.request {
                *slot = Some(Claim { then: Then::Answer(answer), flushes });
                self.watch.claimed.store(true, Relaxed);
                None
            } else {
                Some(answer)
            }
        };
        match unclaimed {
            None => pending().await,
            Some(answer) => answer.await,
        }
    }
}

impl std::fmt::Debug for Park {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Park").field("request", &self.request).finish()
    }
}

/// Whether the answer has a body, and the connection stays open after it, so that hyper can have it back.
pub(crate) fn may_park<B>(request: &Request<B>) -> bool {
    let asks_to_close = |headers: &HeaderMap| {
        let values = headers.get_all(header::CONNECTION).iter();
        values
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    };
    request.version() == Version::HTTP_11
        && request.method() != Method::HEAD
        && !asks_to_close(request.headers())
}

/// Waits for the answer; `None` if the client has gone before.
pub(crate) async fn wait(stream: &NetStream, mut answer: Answer) -> Option<Response> {
    poll_fn(|cx| {
        if let Poll::Ready(response) = answer.as_mut().poll(cx) {
            return Poll::Ready(Some(response));
        }
        let mut byte = [0; 1];
        match stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(None),
            // Pipelined requests wait where they are.
            Poll::Ready(Ok(_)) | Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Writes an answer as hyper would. False if it could not be: `limit` is the longest time without progress.
pub(crate) async fn write(stream: &mut NetStream, response: Response, closes: bool, limit: Duration) -> bool {
    let (parts, body) = response.into_parts();
    let mut bytes = match body.into_bytes() {
        Ok(body) => whole(parts, body, closes),
        // Boxed, so that connections do not have room for what is rare.
        Err(body) => match Box::pin(read_body(body, usize::MAX)).await {
            Ok(body) => whole(parts, body, closes),
            Err(_) => return false,
        },
    };
    while bytes.has_remaining() {
        match timeout(limit, stream.write_buf(&mut bytes)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) | Err(_) => return false,
        }
    }
    matches!(timeout(limit, stream.flush()).await, Ok(Ok(())))
}

/// Head and body. A body is kept until all is written: it may be watched.
fn whole(mut parts: Parts, body: Bytes, closes: bool) -> Chain<Bytes, Bytes> {
    if !matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    if closes {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let copied = if body.len() <= JOINED_BYTES { &body[..] } else { &[] };
    let head = response_head(&parts, copied);
    let mut rest = body;
    if rest.len() <= JOINED_BYTES {
        rest.advance(rest.len());
    }
    head.chain(rest)
}

/// A body up to here is copied behind its head, for one write of one piece.
const JOINED_BYTES: usize = 1024;
