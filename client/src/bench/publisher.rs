//! One publisher: a request after the other, as fast as they are answered or at a rate.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use tokio::time::{Instant, sleep_until};

use super::tally::{Clock, Tally};
use crate::Bench;
use crate::endpoint::Endpoint;
use crate::failure::{Failure, is_passing};
use crate::name;

/// Longest receipt that is read.
const MAX_RECEIPT_BYTES: usize = 64 << 10;

/// How long a server that is busy is left alone.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Publisher {
    endpoint: Endpoint,
    target: String,
    size: usize,
    /// Between two messages; zero: none.
    period: Duration,
    /// When the first one is due, so that publishers take turns.
    first: Duration,
}

impl Publisher {
    /// The one with this number, of those that the arguments ask for.
    pub(super) fn new(
        endpoint: &Endpoint,
        channel: &str,
        arguments: &Bench,
        number: usize,
    ) -> Result<Self, Failure> {
        let publishers = arguments.publishers as f64;
        let period = match arguments.rate {
            Some(rate) if rate > 0.0 && rate.is_finite() => Duration::try_from_secs_f64(publishers / rate)
                .map_err(|error| Failure::Arguments(format!("--rate: {error}")))?,
            Some(_) => return Err(Failure::Arguments("--rate is a number of messages a second".to_owned())),
            None => Duration::ZERO,
        };
        Ok(Publisher {
            endpoint: endpoint.clone(),
            target: format!("/v1/publish/{}", name::channel(channel)),
            size: usize::try_from(arguments.size).unwrap_or(usize::MAX),
            period,
            first: period.mul_f64(number as f64 / publishers),
        })
    }

    /// Publishes until `end`. A rate that cannot be kept is not made up for later.
    pub(super) async fn run(self, clock: Clock, tally: &Tally, end: Instant) -> Result<(), Failure> {
        let mut due = Instant::now() + self.first;
        loop {
            if !self.period.is_zero() {
                sleep_until(due.min(end)).await;
            }
            if Instant::now() >= end {
                return Ok(());
            }
            due = (due + self.period).max(Instant::now());
            let sent = clock.now();
            match self.endpoint.ask(self.request(sent)?, MAX_RECEIPT_BYTES).await {
                Ok(_) => tally.publishes(clock.since(sent)),
                Err(Failure::Refused { status, .. }) if is_passing(status) => {
                    tally.is_refused();
                    tokio::time::sleep(PAUSE).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn request(&self, sent: u64) -> Result<Request<Bytes>, Failure> {
        let request = self.endpoint.request(Method::POST, &self.target);
        request
            .header(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))
            .body(Clock::write(sent, self.size).into())
            .map_err(|error| Failure::Arguments(error.to_string()))
    }
}
