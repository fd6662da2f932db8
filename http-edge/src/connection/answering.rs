//! A request from when it is read until its answer is handed over.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::watch::Watch;
use crate::request::{Body, BoxError, Response};

pin_project! {
    /// A request that is being answered. By hand, because an async block would hold the handler's future twice, and
    /// each connection has room for one of these.
    pub(crate) struct Answering<F> {
        #[pin]
        pub(crate) answer: Answer<F>,
        pub(crate) busy: Option<Busy>,
        // The connection ends after the answer.
        pub(crate) closes: bool,
    }
}

pin_project! {
    #[project = Which]
    pub(crate) enum Answer<F> {
        /// By the service.
        Coming {
            #[pin]
            answer: F,
        },
        /// There already: the service has not seen the request.
        Refused { response: Option<Box<Response>> },
    }
}

impl<F: Future<Output = Response>> Future for Answering<F> {
    type Output = Result<http::Response<BusyBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match this.answer.project() {
            Which::Coming { answer } => ready!(answer.poll(cx)),
            Which::Refused { response } => response.take().map(|response| *response).unwrap_or_default(),
        };
        // Of a body that is too large the rest is not read as a request: a client that keeps the connection would send its
        // next one into a socket that is about to be closed.
        if *this.closes || response.status() == StatusCode::PAYLOAD_TOO_LARGE {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let busy = this.busy.take();
        Poll::Ready(Ok(response.map(|body| BusyBody::new(body, busy))))
    }
}

/// Counts a request as under way until its response body was handed over, or it was given up.
pub(crate) struct Busy(Arc<Watch>);

impl Busy {
    pub(crate) fn new(watch: &Arc<Watch>) -> Self {
        watch.busy.fetch_add(1, Relaxed);
        Busy(Arc::clone(watch))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.handed_over.store(self.0.flushes.load(Relaxed), Relaxed);
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

pub(crate) struct BusyBody {
    body: Body,
    _busy: Option<Busy>,
}

impl BusyBody {
    pub(crate) fn new(body: Body, busy: Option<Busy>) -> Self {
        BusyBody { body, _busy: busy }
    }
}

impl HttpBody for BusyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
