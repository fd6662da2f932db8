//! `fanwire pub`: one message in one request, or one for each line of the input.

use std::io::Write as _;
use std::time::Instant;

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::endpoint::Endpoint;
use crate::failure::{Failure, is_passing};
use crate::pace::Pace;
use crate::progress::Progress;
use crate::{Pub, name, tell};

/// Longest receipt that is read.
const MAX_RECEIPT_BYTES: usize = 1 << 20;

pub(crate) async fn run(arguments: Pub) -> Result<(), Failure> {
    let publisher = Publisher::new(&arguments)?;
    match arguments.data.as_deref() {
        None => publish_lines(&publisher).await,
        Some("-") => {
            let mut payload = Vec::new();
            tokio::io::stdin().read_to_end(&mut payload).await?;
            publisher.publish(payload.into()).await
        }
        Some(data) => publisher.publish(Bytes::copy_from_slice(data.as_bytes())).await,
    }
}

/// A message for each line, until they end or one shows that none will be taken.
async fn publish_lines(publisher: &Publisher) -> Result<(), Failure> {
    let mut input = BufReader::new(tokio::io::stdin());
    let mut outcome = Ok(());
    let mut progress = Progress::new();
    for number in 1_u64.. {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line).await? == 0 {
            break;
        }
        let line =
            line.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line)).unwrap_or(&line);
        let published = publisher.publish(Bytes::copy_from_slice(line)).await;
        if published.is_err() {
            progress.clear();
        }
        match published {
            Ok(()) => progress.at(number),
            // This one's own fault; the others may be shorter.
            Err(failure @ Failure::Refused { status: StatusCode::PAYLOAD_TOO_LARGE, .. }) => {
                tell(format_args!("line {number} is left out: {failure}"));
                outcome = Err(Failure::NotAll("not all lines were published"));
            }
            Err(failure) => {
                if !matches!(failure, Failure::Local(_)) {
                    tell(format_args!("stopped at line {number}"));
                }
                return Err(failure);
            }
        }
    }
    progress.clear();
    outcome
}

/// Publishes to one channel, on one connection as long as it lasts.
struct Publisher {
    endpoint: Endpoint,
    target: String,
    content_type: Option<HeaderValue>,
    key: Option<HeaderValue>,
    retries: u32,
}

impl Publisher {
    fn new(arguments: &Pub) -> Result<Self, Failure> {
        let value = |option: &str, value: &Option<String>| match value {
            None => Ok(None),
            Some(value) => HeaderValue::from_str(value)
                .map(Some)
                .map_err(|_| Failure::Arguments(format!("`{option}` holds what no header can"))),
        };
        Ok(Publisher {
            endpoint: Endpoint::new(&arguments.server)?,
            target: target(arguments),
            content_type: value("--content-type", &arguments.content_type)?,
            key: value("--key", &arguments.key)?,
            retries: arguments.retry,
        })
    }

    /// Publishes one message and prints its receipt.
    async fn publish(&self, payload: Bytes) -> Result<(), Failure> {
        let mut key = self.key.clone();
        if key.is_none() && self.retries > 0 {
            // An answer may get lost after the message was taken. With a key it is still published once.
            key = HeaderValue::from_str(&format!("{:032x}", fastrand::u128(..))).ok();
        }
        let mut pace = Pace::default();
        for left in (0..=self.retries).rev() {
            let failure = match self.attempt(payload.clone(), key.clone()).await {
                Ok(receipt) => return print(&receipt),
                Err(failure) => failure,
            };
            match &failure {
                Failure::Unreachable { .. } if left > 0 => {}
                Failure::Refused { status, retry_after, .. } if left > 0 && is_passing(*status) => {
                    if let Some(retry) = retry_after {
                        pace.server_asks(*retry);
                    }
                }
                _ => return Err(failure),
            }
            let wait = pace.wait(None, Instant::now(), fastrand::f64());
            tell(format_args!("{failure}; trying again in {:.1} s", wait.as_secs_f64()));
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    async fn attempt(&self, payload: Bytes, key: Option<HeaderValue>) -> Result<Bytes, Failure> {
        let mut request = self.endpoint.request(Method::POST, &self.target);
        if let Some(headers) = request.headers_mut() {
            let names = [header::CONTENT_TYPE, HeaderName::from_static("idempotency-key")];
            let values = [self.content_type.clone(), key];
            headers.extend(names.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))));
        }
        let request = request.body(payload).map_err(|error| Failure::Arguments(error.to_string()))?;
        self.endpoint.ask(request, MAX_RECEIPT_BYTES).await
    }
}

fn print(receipt: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(receipt.trim_ascii_end())?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

fn target(arguments: &Pub) -> String {
    let mut query = Serializer::new(String::new());
    if arguments.retain {
        query.append_pair("retain", "true");
    }
    if let Some(ttl) = arguments.ttl {
        query.append_pair("ttl", &ttl.to_string());
    }
    if let Some(event) = &arguments.event {
        query.append_pair("event", event);
    }
    let channel = name::channel(&arguments.channel);
    match query.finish() {
        query if query.is_empty() => format!("/v1/publish/{channel}"),
        query => format!("/v1/publish/{channel}?{query}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Pub,
    }

    #[test]
    fn channel_and_options_make_the_target() {
        for (line, expected) in [
            (&["a/b", "x"][..], "/v1/publish/a/b"),
            (&["a b/é?#%+", "x"], "/v1/publish/a%20b/%C3%A9%3F%23%25%2B"),
            (&["a", "x", "--retain", "--ttl", "1.5"], "/v1/publish/a?retain=true&ttl=1.5"),
            (&["a", "x", "--event", "two words"], "/v1/publish/a?event=two+words"),
        ] {
            let line = ["fanwire"].iter().chain(line);
            assert_eq!(target(&Line::parse_from(line).arguments), expected);
        }
    }
}
