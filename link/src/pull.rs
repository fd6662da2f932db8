//! A stream that the connection's own task writes to.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use broker_core::Outbox;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::ReadBuf;
use tokio::time::{Sleep, sleep};

use crate::STALL_LIMIT;
use crate::socket::Stream;

/// Bytes taken out of the outbox at once; what is taken is out of reach of its policy.
const TAKE: usize = 16 << 10;

/// Slices per vectored write.
const MAX_SLICES: usize = 32;

pub(crate) struct Pull {
    stream: Pin<Box<dyn Stream>>,
    writing: VecDeque<Bytes>,
    /// Written into the stream but perhaps not out of it.
    unflushed: bool,
    stall: Option<Pin<Box<Sleep>>>,
}

impl Pull {
    pub(crate) fn new(stream: Pin<Box<dyn Stream>>) -> Self {
        Self { stream, writing: VecDeque::new(), unflushed: false, stall: None }
    }

    pub(crate) fn is_writing(&self) -> bool {
        !self.writing.is_empty() || self.unflushed
    }

    pub(crate) fn take(&mut self, outbox: &Outbox) {
        self.writing.extend(outbox.take(TAKE).into_iter().filter(|frame| !frame.is_empty()));
    }

    /// Ready once everything that was taken is written and flushed.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.writing.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let used = self.writing.len().min(MAX_SLICES);
            for (slice, frame) in slices.iter_mut().zip(&self.writing) {
                *slice = IoSlice::new(frame);
            }
            let mut written = ready!(self.stream.as_mut().poll_write_vectored(cx, &slices[..used]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.stall = None;
            self.unflushed = true;
            while let Some(frame) = self.writing.front_mut() {
                if written < frame.len() {
                    frame.advance(written);
                    break;
                }
                written -= frame.len();
                self.writing.pop_front();
            }
        }
        ready!(self.stream.as_mut().poll_flush(cx))?;
        self.unflushed = false;
        self.stall = None;
        self.writing.shrink_to(0);
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stall.get_or_insert_with(|| Box::pin(sleep(STALL_LIMIT))).as_mut().poll(cx)
    }

    pub(crate) fn poll_read(
        &mut self,
        input: &mut BytesMut,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut buffer = [0; 8 << 10];
        let mut read = ReadBuf::new(&mut buffer);
        ready!(self.stream.as_mut().poll_read(cx, &mut read))?;
        input.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    pub(crate) async fn finish(&mut self, outbox: &Outbox) {
        loop {
            self.take(outbox);
            if !self.is_writing() {
                break;
            }
            if poll_fn(|cx| self.poll_write(cx)).await.is_err() {
                return;
            }
        }
        if poll_fn(|cx| self.stream.as_mut().poll_shutdown(cx)).await.is_err() {
            return;
        }
        let mut ignored = BytesMut::new();
        while let Ok(1..) = poll_fn(|cx| self.poll_read(&mut ignored, cx)).await {
            ignored.clear();
        }
    }
}
