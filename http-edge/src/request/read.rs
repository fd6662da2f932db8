//! Request bodies, read within a bound.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as HttpBody;
use link::{Intake, Unfinished};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use super::error::{BodyError, BoxError};

/// Longest silence accepted inside a request body: 30 s. A client that sends a head and then nothing would
/// otherwise hold its connection for ever.
pub const DEFAULT_BODY_STALL: Duration = Duration::from_secs(30);

/// Reads a whole body of at most `max_bytes`, in the account of the process: see [`take_body`].
///
/// # Errors
/// As [`take_body`].
pub async fn read_body<B>(body: B, max_bytes: usize) -> Result<Bytes, BodyError>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    take_body(body, max_bytes, &Intake::default()).await
}

/// Reads a whole body of at most `max_bytes`. What came of it counts in `intake` until it is whole.
///
/// A `Content-Length` over the limit is refused before anything is read; without one the bound holds while reading.
/// Memory grows with what comes and not with what is announced. A body that arrives in one piece is returned without a
/// copy.
///
/// # Errors
/// [`BodyError::TooLarge`]; [`BodyError::Stalled`] after [`DEFAULT_BODY_STALL`] without a byte; [`BodyError::TooSlow`]
/// below the least rate, and [`BodyError::Shed`] to make room, both of `intake`; [`BodyError::Io`].
///
/// # Cancel safety
/// Not cancel safe: what was read is lost with the future.
#[expect(clippy::manual_async_fn, reason = "an `async fn` has room for its arguments twice")]
pub fn take_body<B>(
    body: B,
    max_bytes: usize,
    intake: &Intake,
) -> impl Future<Output = Result<Bytes, BodyError>>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    async move {
        let announced = body.size_hint();
        if announced.lower() > max_bytes as u64 {
            return Err(BodyError::TooLarge { max: max_bytes });
        }
        let announced = announced.exact().and_then(|exact| usize::try_from(exact).ok());
        let mut collected = Collected { max_bytes, announced, first: Bytes::new(), rest: Vec::new() };
        let mut body = pin!(body);
        // Most bodies are there already: what waits for one is made only for one that is not, and each connection has room
        // for the rest of this future.
        let ready = poll_fn(|cx| match collected.poll_fill(body.as_mut(), cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => Poll::Ready(None),
        })
        .await;
        match ready {
            Some(done) => done?,
            None => Box::pin(wait_for(body, &mut collected, intake)).await?,
        }
        Ok(collected.into_bytes())
    }
}

/// Reads the rest of a body that comes piece by piece.
async fn wait_for<B>(
    mut body: Pin<&mut B>,
    collected: &mut Collected,
    intake: &Intake,
) -> Result<(), BodyError>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let began = Instant::now();
    let mut unfinished = Unfinished::default();
    let mut last_progress = (began, collected.len());
    let mut waiting = pin!(Waiting::new(sleep_until(began + DEFAULT_BODY_STALL)));
    collected.detach();
    unfinished.hold(intake, collected.len(), began.into_std());
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(done) = collected.poll_fill(body.as_mut(), cx) {
                return Poll::Ready(done);
            }
            let now = Instant::now();
            if collected.len() != last_progress.1 {
                last_progress = (now, collected.len());
                collected.detach();
                unfinished.hold(intake, collected.len(), now.into_std());
            }
            if unfinished.poll_shed(cx).is_ready() {
                return Poll::Ready(Err(BodyError::Shed));
            }
            let stalled_at = last_progress.0 + DEFAULT_BODY_STALL;
            if stalled_at <= now {
                return Poll::Ready(Err(BodyError::Stalled(DEFAULT_BODY_STALL)));
            }
            if unfinished.is_late(intake, collected.len(), now.into_std()) {
                let after = now.saturating_duration_since(began);
                return Poll::Ready(Err(BodyError::TooSlow { received: collected.len(), after }));
            }
            let late_at = unfinished.due(intake, collected.len()).map(Instant::from_std);
            ready!(waiting.as_mut().poll_until(late_at.map_or(stalled_at, |at| at.min(stalled_at)), cx));
        }
    })
    .await
}

pin_project! {
    /// A timer that is moved only when it is late, or has run out too early: one that waits for a busy peer is not
    /// touched for each piece.
    pub(crate) struct Waiting {
        #[pin]
        sleep: Sleep,
    }
}

impl Waiting {
    pub(crate) fn new(sleep: Sleep) -> Self {
        Waiting { sleep }
    }

    pub(crate) fn poll_until(self: Pin<&mut Self>, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut sleep = self.project().sleep;
        if sleep.is_elapsed() || due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        sleep.poll(cx)
    }
}

/// What has come of a body.
struct Collected {
    max_bytes: usize,
    /// How long it is to be, if that is known.
    announced: Option<usize>,
    /// The only piece so far.
    first: Bytes,
    /// All of it, from the second piece on.
    rest: Vec<u8>,
}

impl Collected {
    fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// Takes all that is there; ready at the end of the body.
    fn poll_fill<B>(&mut self, mut body: Pin<&mut B>, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        loop {
            let data = match ready!(body.as_mut().poll_frame(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(BodyError::Io(error.into()))),
                // Trailers are skipped.
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            };
            if data.len() > self.max_bytes.saturating_sub(self.len()) {
                return Poll::Ready(Err(BodyError::TooLarge { max: self.max_bytes }));
            }
            if self.len() == 0 {
                self.first = data;
                if body.is_end_stream() {
                    return Poll::Ready(Ok(()));
                }
            } else if !data.is_empty() {
                self.detach();
                self.append(&data);
            }
        }
    }

    /// Copies a piece that is to be kept: it is part of the buffer it was read into, and would keep all of that.
    fn detach(&mut self) {
        if !self.first.is_empty() {
            let first = std::mem::take(&mut self.first);
            self.append(&first);
        }
    }

    fn append(&mut self, data: &[u8]) {
        let needed = self.rest.len() + data.len();
        if needed > self.rest.capacity() {
            let doubled = needed.max(self.rest.capacity() * 2);
            let room = self.announced.map_or(doubled, |announced| doubled.min(announced.max(needed)));
            self.rest.reserve_exact(room - self.rest.len());
        }
        self.rest.extend_from_slice(data);
    }

    fn into_bytes(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Frame;

    use crate::request::Body;

    /// A body in pieces whose length nobody announced.
    struct Pieces(Vec<&'static str>);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            let piece = self.0.remove(0);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(piece.as_bytes())))))
        }
    }

    #[tokio::test]
    async fn pieces_are_joined_up_to_the_limit() {
        let cases = [
            (vec![], 0, Some("")),
            (vec!["ab"], 2, Some("ab")),
            (vec!["ab"], 1, None),
            (vec!["ab", "", "cd"], 4, Some("abcd")),
            (vec!["ab", "cd"], 3, None),
            (vec!["a", "b", "c"], 2, None),
            (vec!["", "a"], 1, Some("a")),
        ];
        for (pieces, max, expected) in cases {
            let read = read_body(Pieces(pieces.clone()), max).await.ok();
            assert_eq!(read.as_deref(), expected.map(str::as_bytes), "{pieces:?} within {max}");
        }
    }

    #[tokio::test]
    async fn an_announced_length_over_the_limit_is_refused_unread() {
        let error = read_body(Body::full("abc"), 2).await.unwrap_err();
        assert!(matches!(error, BodyError::TooLarge { max: 2 }));
    }

    #[tokio::test]
    async fn a_body_in_one_piece_is_not_copied() {
        let bytes = Bytes::from(vec![7; 64]);
        let read = read_body(Body::full(bytes.clone()), 64).await.unwrap();
        assert_eq!(read.as_ptr(), bytes.as_ptr());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_body_is_given_up() {
        struct Silent;
        impl HttpBody for Silent {
            type Data = Bytes;
            type Error = BoxError;
            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
                Poll::Pending
            }
        }
        assert!(matches!(read_body(Silent, 10).await, Err(BodyError::Stalled(_))));
    }

    /// So many bytes at a time, as often as `every` says.
    struct Drip {
        bytes: usize,
        timer: Pin<Box<Sleep>>,
        every: Duration,
    }

    impl Drip {
        fn new(bytes: usize, every: Duration) -> Self {
            Drip { bytes, timer: Box::pin(tokio::time::sleep(every)), every }
        }
    }

    impl HttpBody for Drip {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            ready!(self.timer.as_mut().poll(cx));
            let next = Instant::now() + self.every;
            self.timer.as_mut().reset(next);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; self.bytes])))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_needs_a_least_rate_over_its_whole_length() {
        let intake = Intake::new(link::IntakeConfig::default());
        let begun = Instant::now();
        let error = take_body(Drip::new(1, Duration::from_secs(22)), 1000, &intake).await.unwrap_err();
        assert!(matches!(error, BodyError::TooSlow { received: 1, .. }), "{error}");
        assert_eq!(begun.elapsed().as_secs(), 30);
        // A long one that moves may take hours; here it ends because it is too long.
        let error =
            take_body(Drip::new(10_000, Duration::from_secs(15)), 5_000_000, &intake).await.unwrap_err();
        assert!(matches!(error, BodyError::TooLarge { .. }), "{error}");
        assert!(begun.elapsed().as_secs() > 7_000);
        assert_eq!((intake.stats().slow, intake.stats().held_bytes), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_given_up_where_there_is_no_room() {
        let mut config = link::IntakeConfig::default();
        config.max_bytes = 100_000;
        let intake = Intake::new(config);
        let error = take_body(Drip::new(30_000, Duration::from_secs(1)), 1 << 20, &intake).await.unwrap_err();
        assert!(matches!(error, BodyError::Shed), "{error}");
        assert_eq!((intake.stats().shed, intake.stats().held_bytes), (1, 0));
    }

    #[test]
    fn memory_is_taken_for_what_came_and_not_for_what_was_announced() {
        let mut collected = Collected {
            max_bytes: 16 << 20,
            announced: Some(16 << 20),
            first: Bytes::new(),
            rest: Vec::new(),
        };
        collected.append(b"[");
        collected.append(b" ");
        assert!(collected.rest.capacity() <= 16, "{}", collected.rest.capacity());
        let mut before = 0;
        for _ in 0..1000 {
            collected.append(&[0; 1000]);
            let capacity = collected.rest.capacity();
            assert!(capacity <= 2 * collected.rest.len());
            // Not one copy for each piece.
            assert!(capacity == before || capacity >= 2 * before);
            before = capacity;
        }
        // And no more than it will be.
        collected.append(&vec![0; (16 << 20) - collected.len()]);
        assert_eq!(collected.rest.capacity(), 16 << 20);
    }
}
