//! The body of an answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::connection::Connection;
use crate::error::{Error, Phase};
use crate::pool::Pool;
use crate::target::Target;

/// The body of an answer, as it comes. Read to its end its connection serves the next request; dropped before that the
/// connection is closed.
#[derive(Debug)]
pub struct Body {
    incoming: Incoming,
    lease: Option<Lease>,
}

/// A connection that is in use, and the turn of its request.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) pool: Arc<Pool>,
    pub(crate) target: Target,
    pub(crate) connection: Connection,
    pub(crate) turn: OwnedSemaphorePermit,
}

impl Lease {
    fn end(self) {
        self.pool.put(&self.target, self.connection);
        drop(self.turn);
    }
}

impl Body {
    pub(crate) fn new(incoming: Incoming, lease: Lease) -> Self {
        let mut body = Body { incoming, lease: Some(lease) };
        body.end_if_over();
        body
    }

    /// Of a connection that nobody gets back.
    pub(crate) fn unpooled(incoming: Incoming) -> Self {
        Body { incoming, lease: None }
    }

    /// The next bytes; `None` at the end. Waits as long as it takes.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::NotHttp`].
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.frame().await {
            if let Ok(bytes) = frame?.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// All of it, at most `max_bytes` and `within` a time. One piece is returned without a copy.
    ///
    /// # Errors
    /// [`Error::TooLarge`], before anything is read where the size was announced; [`Error::Timeout`]; as
    /// [`Body::next`].
    pub async fn collect(self, max_bytes: usize, within: Duration) -> Result<Bytes, Error> {
        timeout(within, self.read(max_bytes)).await.map_err(|_| Error::timeout(Phase::Whole, within))?
    }

    pub(crate) async fn read(mut self, max_bytes: usize) -> Result<Bytes, Error> {
        let too_large = Error::TooLarge { max_bytes };
        if self.size_hint().lower() > max_bytes as u64 {
            return Err(too_large);
        }
        let mut all = Bytes::new();
        let mut joined = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if all.len() + joined.len() + piece.len() > max_bytes {
                return Err(too_large);
            }
            if all.is_empty() && joined.is_empty() {
                all = piece;
                continue;
            }
            if joined.is_empty() {
                joined.extend_from_slice(&std::mem::take(&mut all));
            }
            joined.extend_from_slice(&piece);
        }
        Ok(if joined.is_empty() { all } else { joined.freeze() })
    }

    fn end_if_over(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.end();
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            Some(Ok(_)) => self.end_if_over(),
            Some(Err(_)) => self.lease = None,
            None => {
                if let Some(lease) = self.lease.take() {
                    lease.end();
                }
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| Error::of_hyper(&error))))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
