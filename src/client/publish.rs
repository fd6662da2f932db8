//! `fanwire pub`: one message in one request.

use std::io::Write as _;

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::{HeaderName, HeaderValue, Method, header};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::AsyncReadExt;

use super::Pub;
use super::endpoint::Endpoint;
use super::failure::Failure;

/// What of a channel is not itself in a path. The slash is: it joins segments there too.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Longest receipt that is read.
const MAX_RECEIPT_BYTES: usize = 1 << 20;

pub(crate) async fn run(arguments: Pub) -> Result<(), Failure> {
    let endpoint = Endpoint::new(&arguments.server)?;
    let payload = payload(&arguments.data).await?;
    let mut request = endpoint.request(Method::POST, &target(&arguments));
    if let Some(headers) = request.headers_mut() {
        for (name, option, value) in [
            (header::CONTENT_TYPE, "--content-type", &arguments.content_type),
            (HeaderName::from_static("idempotency-key"), "--key", &arguments.key),
        ] {
            let Some(value) = value else { continue };
            let value = HeaderValue::from_str(value)
                .map_err(|_| Failure::Arguments(format!("`{option}` holds what no header can")))?;
            headers.insert(name, value);
        }
    }
    let request = request.body(Full::new(payload)).map_err(|error| Failure::Arguments(error.to_string()))?;
    let response = endpoint.send(request).await?;
    let receipt = http_edge::read_body(response.into_body(), MAX_RECEIPT_BYTES)
        .await
        .map_err(|error| endpoint.foreign(error.to_string()))?;
    let mut out = std::io::stdout().lock();
    out.write_all(receipt.trim_ascii_end())?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

async fn payload(data: &str) -> Result<Bytes, Failure> {
    if data != "-" {
        return Ok(Bytes::copy_from_slice(data.as_bytes()));
    }
    let mut payload = Vec::new();
    tokio::io::stdin().read_to_end(&mut payload).await?;
    Ok(payload.into())
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
    let channel = utf8_percent_encode(&arguments.channel, SEGMENT);
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
