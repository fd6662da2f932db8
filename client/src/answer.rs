//! Requests to the server, and what comes back.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use outgoing::{Body, Error, TlsProblem};
use serde::Deserialize;

use crate::endpoint::Endpoint;
use crate::failure::Failure;

/// How long a whole answer may take, once its head has come.
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// Longest error answer that is read.
const MAX_PROBLEM_BYTES: usize = 64 << 10;

impl Endpoint {
    /// Sends a request and returns what is not an error, as its head has come.
    pub(crate) async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, Failure> {
        let response = match self.client.send(request).await {
            Ok(response) => response,
            Err(error) => return Err(self.no_answer(error).await),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response).await)
    }

    /// Sends a request and returns the body of what is not an error.
    pub(crate) async fn ask(&self, request: Request<Bytes>, max_bytes: usize) -> Result<Bytes, Failure> {
        let response = self.send(request).await?;
        match response.into_body().collect(max_bytes, BODY_LIMIT).await {
            Ok(body) => Ok(body),
            Err(error @ (Error::TooLarge { .. } | Error::NotHttp(_))) => Err(self.foreign(error.to_string())),
            Err(error) => Err(self.unreachable(&error)),
        }
    }

    /// What a request without an answer means.
    async fn no_answer(&self, error: Error) -> Failure {
        match error {
            // Servers for TLS answer plain HTTP with an alert, or hang up.
            Error::NotHttp(_) | Error::Broken(_) if self.may_want_tls().await => {
                self.foreign("TLS is spoken there, and that is https://")
            }
            Error::NotHttp(_) => self.foreign("not HTTP"),
            Error::Tls { problem: TlsProblem::UnknownAuthority, why } => {
                self.unreachable(&format!("{why}; --ca-file FILE names a private authority"))
            }
            error => self.unreachable(&error),
        }
    }
}

/// The members of an RFC 9457 answer that are shown.
#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
}

async fn refusal(response: Response<Body>) -> Failure {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let body = response.into_body().collect(MAX_PROBLEM_BYTES, BODY_LIMIT).await.unwrap_or_default();
    let Problem { code, detail } =
        serde_json::from_slice(&body).unwrap_or_else(|_| foreign_problem(status, &body));
    Failure::Refused { status, code, detail, retry_after }
}

/// An error of somebody between here and the server, or of another server.
fn foreign_problem(status: StatusCode, body: &[u8]) -> Problem {
    const MAX_CHARS: usize = 200;
    let text = String::from_utf8_lossy(body);
    let said = title(&text).or_else(|| text.lines().next()).unwrap_or_default();
    Problem {
        code: status.canonical_reason().unwrap_or("error").to_lowercase().replace(' ', "_"),
        detail: said.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect(),
    }
}

/// The title of a web page, which is what proxies answer with.
fn title(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once("<title>")?;
    rest.split_once("</title>").map(|(title, _)| title.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_page_the_title_is_told_and_of_a_text_its_first_line() {
        let nginx =
            "<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>\r\n";
        for (body, told) in [
            (nginx, "400 The plain HTTP request was sent to HTTPS port"),
            (
                "Client sent an HTTP request to an HTTPS server.\n",
                "Client sent an HTTP request to an HTTPS server.",
            ),
            ("<title>\u{1b}[2J no end", "<title>[2J no end"),
            ("", ""),
        ] {
            let problem = foreign_problem(StatusCode::BAD_GATEWAY, body.as_bytes());
            assert_eq!((problem.code.as_str(), problem.detail.as_str()), ("bad_gateway", told));
        }
    }
}
