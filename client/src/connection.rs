//! Connections to the server, and what comes back on them.

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::tls::{self, Tls, Trust};

/// How long connecting may take, all addresses of a name and TLS together.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long the head of an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How long a server that was spoken to in plain HTTP may take to show that it wanted TLS.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// Longest error answer that is read.
const MAX_PROBLEM_BYTES: usize = 64 << 10;

/// A connection that takes one request after the other; it ends with the body of the last answer.
pub(crate) type Connection = http1::SendRequest<Full<Bytes>>;

impl Endpoint {
    /// Sends a request on a connection of its own and returns what is not an error.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let mut connection = self.open().await?;
        self.exchange(&mut connection, request).await
    }

    pub(crate) async fn open(&self) -> Result<Connection, Failure> {
        match timeout(CONNECT_LIMIT, self.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(self.unreachable(&"it does not answer")),
        }
    }

    /// Sends a request and returns what is not an error.
    pub(crate) async fn exchange(
        &self,
        connection: &mut Connection,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Failure> {
        let response = match timeout(ANSWER_LIMIT, connection.send_request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.no_answer(&error).await),
            Err(_) => return Err(self.unreachable(&"no answer came")),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response).await)
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let stream = self.dial().await?;
        match &self.tls {
            None => self.speak_http(stream).await,
            Some(tls) => match tls.connect(stream).await {
                Ok(stream) => self.speak_http(stream).await,
                Err(error) => Err(self.unreachable(&tls::explain(&error, &self.host))),
            },
        }
    }

    async fn dial(&self) -> Result<TcpStream, Failure> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| self.unreachable(&error))?;
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    async fn speak_http<S>(&self, stream: S) -> Result<Connection, Failure>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(&error))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// What a request without an answer means.
    async fn no_answer(&self, error: &hyper::Error) -> Failure {
        // Servers for TLS answer plain HTTP with an alert, or hang up.
        if (error.is_parse() || error.is_incomplete_message()) && self.tls.is_none() && self.has_tls().await {
            return self.foreign("TLS is spoken there, and that is https://");
        }
        if error.is_parse() {
            return self.foreign("not HTTP");
        }
        let mut why = error.to_string();
        if let Some(cause) = error.source() {
            let _ = write!(why, ": {cause}");
        }
        self.unreachable(&why)
    }

    async fn has_tls(&self) -> bool {
        let try_it = async {
            let (Ok(tls), Ok(stream)) = (Tls::new(&self.host, Trust::Anyone), self.dial().await) else {
                return false;
            };
            tls::is_tls(&tls.connect(stream).await)
        };
        timeout(PROBE_LIMIT, try_it).await.unwrap_or(false)
    }
}

/// The members of an RFC 9457 answer that are shown.
#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
}

async fn refusal(response: Response<Incoming>) -> Failure {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let body = http_edge::read_body(response.into_body(), MAX_PROBLEM_BYTES).await.unwrap_or_default();
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
