//! The server's address, and requests to it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::arguments::ServerArguments;
use super::failure::Failure;

/// One server, and what is said to it on every request.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// As people read it, without credentials.
    pub(crate) url: String,
    host: String,
    port: u16,
    /// What stands before the path where a proxy mounts the server below `/`.
    prefix: String,
    headers: HeaderMap,
}

/// How long connecting may take, all addresses of a name together.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long the head of an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Longest error answer that is read.
const MAX_PROBLEM_BYTES: usize = 64 << 10;

impl Endpoint {
    /// Reads address and credentials; what the arguments do not say, the environment may.
    pub(crate) fn new(arguments: &ServerArguments) -> Result<Self, Failure> {
        let (token, user) = match (&arguments.token, &arguments.user) {
            (None, None) => (std::env::var("FANWIRE_TOKEN").ok(), std::env::var("FANWIRE_USER").ok()),
            (token, user) => (token.clone(), user.clone()),
        };
        let wrong = |why: &str| Failure::Arguments(format!("`{}` is no address: {why}", arguments.url));
        let text = if arguments.url.contains("://") {
            arguments.url.clone()
        } else {
            format!("http://{}", arguments.url)
        };
        let uri: Uri = text.parse().map_err(|_| wrong("not a URL such as http://127.0.0.1:8080"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("only http:// is spoken"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?;
        if uri.query().is_some() || uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(wrong("neither a query nor credentials belong there"));
        }
        let port = uri.port_u16().unwrap_or(80);
        let mut headers = HeaderMap::new();
        let authority = uri.authority().map_or(host, |authority| authority.as_str());
        headers.insert(
            header::HOST,
            HeaderValue::from_str(authority).map_err(|_| wrong("its host is no name"))?,
        );
        if let Some(value) = authorization(token, user)? {
            headers.insert(header::AUTHORIZATION, value);
        }
        Ok(Endpoint {
            url: text.trim_end_matches('/').to_owned(),
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            headers,
        })
    }

    /// A request for `path_and_query`, which begins with a slash.
    pub(crate) fn request(&self, method: http::Method, path_and_query: &str) -> http::request::Builder {
        let mut request = Request::builder().method(method).uri(format!("{}{path_and_query}", self.prefix));
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.headers);
            headers.insert(
                header::USER_AGENT,
                HeaderValue::from_static(concat!("fanwire/", env!("CARGO_PKG_VERSION"))),
            );
        }
        request
    }

    /// Sends a request on a connection of its own and returns what is not an error.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        let stream = match timeout(CONNECT_LIMIT, connect).await {
            Ok(connected) => connected.map_err(|error| self.unreachable(&error))?,
            Err(_) => return Err(self.unreachable(&"it does not answer")),
        };
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(&error))?;
        // It ends with the response's body.
        tokio::spawn(connection);
        let response = match timeout(ANSWER_LIMIT, sender.send_request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_parse() => return Err(self.foreign("not HTTP")),
            Ok(Err(error)) => return Err(self.unreachable(&error)),
            Err(_) => return Err(self.unreachable(&"no answer came")),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refusal(response).await)
    }

    pub(crate) fn foreign(&self, why: impl Into<String>) -> Failure {
        Failure::Foreign { url: self.url.clone(), why: why.into() }
    }

    fn unreachable(&self, why: &dyn std::fmt::Display) -> Failure {
        Failure::Unreachable { url: self.url.clone(), why: why.to_string() }
    }
}

fn authorization(token: Option<String>, user: Option<String>) -> Result<Option<HeaderValue>, Failure> {
    let text = match (token, user) {
        (Some(token), _) => format!("Bearer {token}"),
        (None, Some(user)) if user.contains(':') => format!("Basic {}", STANDARD.encode(user)),
        (None, Some(_)) => return Err(Failure::Arguments("a user is given as NAME:PASSWORD".into())),
        (None, None) => return Ok(None),
    };
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| Failure::Arguments("the token holds what no header can".into()))?;
    value.set_sensitive(true);
    Ok(Some(value))
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
    let line: String =
        text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect();
    Problem {
        code: status.canonical_reason().unwrap_or("error").to_lowercase().replace(' ', "_"),
        detail: line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Result<Endpoint, String> {
        let arguments = ServerArguments { url: url.to_owned(), token: Some("t".into()), user: None };
        Endpoint::new(&arguments).map_err(|failure| failure.to_string())
    }

    #[test]
    fn an_address_has_host_port_and_perhaps_a_prefix() {
        let cases = [
            ("http://127.0.0.1:8080", "127.0.0.1", 8080, "/sse"),
            ("127.0.0.1:8080/", "127.0.0.1", 8080, "/sse"),
            ("localhost", "localhost", 80, "/sse"),
            ("http://[::1]:1/", "::1", 1, "/sse"),
            ("http://proxy.example/fanwire/", "proxy.example", 80, "/fanwire/sse"),
        ];
        for (url, host, port, target) in cases {
            let endpoint = endpoint(url).unwrap();
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, port), "{url}");
            let request = endpoint.request(http::Method::GET, "/sse").body(()).unwrap();
            assert_eq!(request.uri(), target, "{url}");
            assert_eq!(request.headers()["authorization"], "Bearer t");
        }
    }

    #[test]
    fn what_is_no_address_is_said() {
        for (url, why) in [
            ("https://a", "only http:// is spoken"),
            ("http://", "not a URL"),
            ("http://a b", "not a URL"),
            ("http://u:p@a", "credentials"),
            ("http://a?x=1", "query"),
        ] {
            let said = endpoint(url).unwrap_err();
            assert!(said.contains(why), "{url}: {said}");
        }
    }

    #[test]
    fn credentials_are_a_bearer_or_a_pair() {
        let value = |token: Option<&str>, user: Option<&str>| {
            authorization(token.map(Into::into), user.map(Into::into))
                .map(|value| value.map(|v| v.to_str().unwrap().to_owned()))
        };
        assert_eq!(value(Some("k"), None).unwrap().as_deref(), Some("Bearer k"));
        assert_eq!(value(None, Some("a:b:c")).unwrap().as_deref(), Some("Basic YTpiOmM="));
        assert_eq!(value(None, None).unwrap(), None);
        assert!(value(None, Some("a")).is_err());
        assert!(value(Some("a\nb"), None).is_err());
    }
}
