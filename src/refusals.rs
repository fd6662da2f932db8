//! What a client is told that the listener has no room or no patience for.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Version, header};
use http_edge::{
    Body, Cookies, HostPolicy, OriginPolicy, Problem, Response, X_REQUEST_ID, read_body, request_id,
    response_head,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{AddressLimits, Config, Fronts, listener};

/// How long a refused peer may take to say what it wants.
const PATIENCE: Duration = Duration::from_millis(300);
/// How much of what it says is read for that, in bytes.
const MAX_START_BYTES: usize = 8 * 1024;
/// How many headers may be in it.
const MAX_HEADERS: usize = 100;
/// When a client for which there was no room may come back. Nobody knows better.
const NO_ROOM_RETRY: Duration = Duration::from_secs(5);
/// The longest answer: ours are far shorter.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Why a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// There are as many connections as may be.
    Full,
    /// Its address has as many connections as it may have.
    AddressFull,
    /// Its address may send the next request only after this.
    TooFast(Duration),
    /// It asks for a server of another name.
    Host,
}

/// Refuses as the front of the path would: with the headers without which a page may not read the answer, and to an event stream with an answer
/// that a browser comes back after.
#[derive(Clone, Debug)]
pub(crate) struct Refusals {
    fronts: Fronts,
    hosts: HostPolicy,
    /// Names of what is listened to that every policy answers to.
    ours: Vec<Box<[u8]>>,
    misdirected: Arc<AtomicU64>,
    #[cfg(feature = "http")]
    api: (OriginPolicy, http_edge::TokenSources),
    #[cfg(feature = "bayeux")]
    bayeux: OriginPolicy,
    #[cfg(feature = "sse")]
    sse: (OriginPolicy, http_edge::TokenSources),
}

impl Refusals {
    /// For the fronts that `config` has set up.
    #[cfg_attr(
        not(any(feature = "bayeux", feature = "http", feature = "sse")),
        expect(unused_variables, reason = "no front was built in that pages read answers of")
    )]
    pub(crate) fn new(fronts: Fronts, config: &Config) -> Self {
        Refusals {
            fronts,
            hosts: HostPolicy::Any,
            ours: Vec::new(),
            misdirected: Arc::default(),
            #[cfg(feature = "http")]
            api: (config.api.origins.clone(), config.api.token_sources.clone()),
            #[cfg(feature = "bayeux")]
            bayeux: config.bayeux.origins.clone(),
            #[cfg(feature = "sse")]
            sse: (config.sse.origins.clone(), config.sse.token_sources.clone()),
        }
    }

    /// The same, for a listener at `address` that answers to these names.
    pub(crate) fn for_hosts(self, hosts: HostPolicy, address: Option<SocketAddr>) -> Self {
        let ours = address.into_iter().flat_map(|address| {
            [address.to_string(), format!("localhost:{}", address.port()), "localhost".to_owned()]
        });
        Refusals { hosts, ours: ours.map(|name| name.into_bytes().into()).collect(), ..self }
    }

    /// Requests so far that were for another name.
    #[cfg(feature = "http")]
    pub(crate) fn misdirected(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.misdirected)
    }

    /// Whether a request of this address is answered at all. The rate does not count `OPTIONS`: its answer costs as little as a refusal, and a
    /// page whose preflight failed could not read why. Nor does it count health and readiness: who restarts a server by them shares an address with its clients.
    pub(crate) fn admit<B>(
        &self,
        addresses: &AddressLimits,
        address: IpAddr,
        request: &Request<B>,
    ) -> Result<(), Why> {
        if !self.names_us(request) && self.hosts.check(request.uri(), request.headers()).is_err() {
            return Err(Why::Host);
        }
        if request.method() == Method::OPTIONS || matches!(request.uri().path(), "/healthz" | "/readyz") {
            return Ok(());
        }
        addresses.admit(address).map_err(Why::TooFast)
    }

    /// Whether a request is for what is listened to, in the words that most use. HTTP/1 has one `Host` by then.
    fn names_us<B>(&self, request: &Request<B>) -> bool {
        let host = request.headers().iter().find(|(name, _)| **name == header::HOST);
        request.uri().authority().is_none()
            && host.is_some_and(|(_, host)| self.ours.iter().any(|ours| **ours == *host.as_bytes()))
    }

    /// The fronts, for requests that are not refused.
    pub(crate) fn fronts(&self) -> &Fronts {
        &self.fronts
    }

    /// The answer to a request that no front will see.
    pub(crate) async fn refuse(&self, why: Why, request: Parts) -> Response {
        let problem = self.problem(why, &request);
        #[cfg(feature = "sse")]
        if why != Why::Host && request.method == Method::GET && first_segment(request.uri.path()) == "sse" {
            let headers = &request.headers;
            let wait = problem.retry_after.unwrap_or(NO_ROOM_RETRY);
            return self.fronts.sse().send_away(request.version, headers, &problem.detail, wait).await;
        }
        self.readable(&problem, &request)
    }

    /// The answer to a request that is refused before any front looks at it, for the pages that may read what is there.
    pub(crate) fn readable(&self, problem: &Problem, request: &Parts) -> Response {
        let mut response = problem.response();
        let answer = response.headers_mut();
        if let Some((origins, cookies)) = self.readers_of(request.uri.path()) {
            origins.cors_headers(&request.headers, cookies, answer);
        }
        answer.insert(X_REQUEST_ID, request_id(&request.headers));
        response
    }

    fn problem(&self, why: Why, request: &Parts) -> Problem {
        match why {
            Why::Full => Problem::no_room(NO_ROOM_RETRY),
            Why::AddressFull => Problem::too_many_connections(NO_ROOM_RETRY),
            Why::TooFast(wait) => Problem::too_many_requests(wait),
            Why::Host => {
                let name = self.hosts.check(&request.uri, &request.headers).err().unwrap_or_default();
                let refused = self.misdirected.fetch_add(1, Relaxed) + 1;
                // An operator who forgot a name sees it here; a page that tries for a day does not fill the log.
                if refused.is_power_of_two() {
                    tracing::warn!(host = %name, refused, "request for a host that is not in `server.hosts`");
                }
                Problem::host_not_allowed(name)
            }
        }
    }

    /// The pages that may read what is at a path: where no front of its own is for pages, those that may read the API.
    fn readers_of(&self, path: &str) -> Option<(&OriginPolicy, Cookies)> {
        match first_segment(path) {
            #[cfg(feature = "bayeux")]
            _ if self.fronts.bayeux().serves(path) => Some((&self.bayeux, Cookies::Include)),
            #[cfg(feature = "sse")]
            "sse" => {
                let (origins, tokens) = &self.sse;
                Some((origins, origins.cookies(tokens)))
            }
            #[cfg(feature = "http")]
            _ => {
                let (origins, tokens) = &self.api;
                Some((origins, origins.cookies(tokens)))
            }
            #[cfg(not(feature = "http"))]
            _ => None,
        }
    }

    /// Tells a peer that was just accepted why it is closed, in HTTP/1.1. Hyper never sees it, so that it costs next to nothing.
    pub(crate) async fn tell(&self, mut stream: TcpStream, why: Why) -> io::Result<()> {
        let mut start = Vec::new();
        // An answer before the question confuses clients; a peer that asks nothing is told all the same.
        let _ = timeout(PATIENCE, read_start(&mut stream, &mut start)).await;
        stream.write_all(&self.to_start(why, &start).await).await?;
        listener::close(stream).await
    }

    /// The answer to the start of a connection. Without a whole head nobody knows what page asks, so none may read it.
    async fn to_start(&self, why: Why, start: &[u8]) -> Bytes {
        let (response, is_head) = match parse(start) {
            Some(request) if request.method() == Method::OPTIONS => {
                (self.fronts.handle(request).await, false)
            }
            Some(request) => {
                let (parts, _) = request.into_parts();
                let is_head = parts.method == Method::HEAD;
                (self.refuse(why, parts).await, is_head)
            }
            None => (self.problem(why, &http::Request::new(()).into_parts().0).response(), false),
        };
        let (mut parts, body) = response.into_parts();
        let length = http_body::Body::size_hint(&body).exact();
        let body = read_body(body, MAX_ANSWER_BYTES).await.unwrap_or_default();
        if let Some(length) = length {
            parts.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        response_head(&parts, if is_head { &[] } else { &body })
    }
}

fn first_segment(path: &str) -> &str {
    path.split('/').nth(1).unwrap_or_default()
}

/// Reads until there is a whole head, or as much as is looked at.
async fn read_start(stream: &mut TcpStream, start: &mut Vec<u8>) -> io::Result<()> {
    let mut looked_at = 0;
    while start.len() < MAX_START_BYTES && stream.read_buf(start).await? > 0 {
        let from = usize::saturating_sub(looked_at, 3);
        if start.get(from..).is_some_and(|new| new.windows(4).any(|end| end == b"\r\n\r\n")) {
            break;
        }
        looked_at = start.len();
    }
    Ok(())
}

/// The request that a connection begins with, without its body.
fn parse(start: &[u8]) -> Option<Request<Body>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut fields);
    if !parsed.parse(start).ok()?.is_complete() {
        return None;
    }
    let version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut request = Request::builder().method(parsed.method?).uri(parsed.path?).version(version);
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        request = request.header(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    request.body(Body::empty()).ok()
}

#[cfg(test)]
mod tests {
    use broker_core::Broker;

    use super::*;

    fn refusals(origins: OriginPolicy) -> Refusals {
        let mut config = Config::default();
        config.api.origins = origins.clone();
        config.sse.origins = origins.clone();
        config.bayeux.origins = origins;
        let broker = Broker::new(broker_core::Config::default());
        Refusals::new(Fronts::new(&broker, &config), &config)
    }

    async fn told(refusals: &Refusals, why: Why, start: &str) -> String {
        String::from_utf8(refusals.to_start(why, start.as_bytes()).await.to_vec()).expect("UTF-8")
    }

    const PAGE: &str = "host: broker\r\norigin: https://app.example\r\n\r\n";

    #[tokio::test]
    async fn a_page_can_read_why_it_is_refused_if_it_may_read_anything() {
        let listed = refusals(OriginPolicy::List(vec!["https://app.example".into()]));
        let foreign = refusals(OriginPolicy::SameOrigin);
        for path in [
            "/v1/publish/a",
            "/metrics",
            "/healthz",
            "/cometd",
            "/cometd/connect",
            "/sse/a",
            "/",
            "/mqtt",
            "/x",
        ] {
            for method in ["GET", "POST", "HEAD"] {
                let asked = format!("{method} {path} HTTP/1.1\r\n{PAGE}");
                let answer = told(&listed, Why::Full, &asked).await;
                assert!(
                    answer.contains("\r\naccess-control-allow-origin: https://app.example\r\n"),
                    "{asked}{answer}"
                );
                assert!(answer.contains("\r\nvary: Origin\r\n"), "{asked}{answer}");
                assert!(answer.contains("\r\naccess-control-allow-credentials: true\r\n"), "{asked}{answer}");
                let answer = told(&foreign, Why::AddressFull, &asked).await;
                assert!(!answer.contains("access-control"), "{asked}{answer}");
                assert!(answer.contains("\r\nvary: Origin\r\n"), "{asked}{answer}");
            }
        }
    }

    #[tokio::test]
    async fn every_answer_has_its_length_its_code_and_the_time_to_come_back() {
        let refusals = refusals(OriginPolicy::Any);
        let ask = |method| format!("{method} /v1/publish/a HTTP/1.1\r\nhost: x\r\n\r\n");
        for (why, start, status, code) in [
            (Why::Full, ask("POST"), "503 Service Unavailable", "too_many_connections"),
            (Why::AddressFull, ask("POST"), "429 Too Many Requests", "too_many_connections"),
            (Why::Full, String::new(), "503 Service Unavailable", "too_many_connections"),
            (Why::Full, "POST /v1".to_owned(), "503 Service Unavailable", "too_many_connections"),
            (Why::AddressFull, "\u{10}\u{1}".to_owned(), "429 Too Many Requests", "too_many_connections"),
            (
                Why::Full,
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
                "503 Service Unavailable",
                "too_many_connections",
            ),
        ] {
            let answer = told(&refusals, why, &start).await;
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{start:?} {head}");
            assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{start:?} {head}");
            assert!(
                head.contains("\r\nretry-after: 5\r\n") && head.contains("connection: close"),
                "{start:?} {head}"
            );
            assert!(body.contains(&format!("\"code\":\"{code}\"")), "{start:?} {body}");
        }
        let answer = told(&refusals, Why::Full, &ask("HEAD")).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("\r\ncontent-length: 1") && body.is_empty(), "{answer}");
    }

    #[tokio::test]
    async fn an_event_stream_is_told_to_come_back_and_ends() {
        let refusals = refusals(OriginPolicy::Any);
        for version in ["HTTP/1.0", "HTTP/1.1"] {
            let start = format!("GET /sse/a?x=1 {version}\r\n{PAGE}");
            let answer = told(&refusals, Why::AddressFull, &start).await;
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"), "{head}");
            assert!(!head.contains("content-length"), "{head}");
            let retry = body.split("\nretry: ").nth(1).and_then(|rest| rest.strip_suffix('\n'));
            let millis: u64 = retry.and_then(|retry| retry.parse().ok()).expect("a time");
            assert!((5_000..=10_000).contains(&millis), "{body}");
        }
    }

    #[tokio::test]
    async fn a_request_for_another_host_is_421_and_says_for_which() {
        let refusals = refusals(OriginPolicy::Loopback).for_hosts(HostPolicy::Names(Vec::new()), None);
        let addresses = AddressLimits::new(None);
        for (path, host, admitted) in [
            ("/v1/publish/a", "evil.example:8080", false),
            ("/sse/a", "evil.example", false),
            ("/healthz", "evil.example", false),
            ("/", "localhost:8080", true),
        ] {
            for method in ["GET", "OPTIONS"] {
                let request =
                    Request::builder().method(method).uri(path).header("host", host).body(()).unwrap();
                let answer = refusals.admit(&addresses, [127, 0, 0, 1].into(), &request);
                assert_eq!(answer.is_ok(), admitted, "{method} {path} {host}");
                let Err(why) = answer else { continue };
                let response = refusals.refuse(why, request.into_parts().0).await;
                assert_eq!(response.status(), 421, "{method} {path}");
                let body = read_body(response.into_body(), 1000).await.unwrap();
                let text = String::from_utf8_lossy(&body);
                assert!(text.contains("host_not_allowed") && text.contains(host), "{text}");
            }
        }
        assert_eq!(refusals.misdirected().load(Relaxed), 6);
    }

    #[tokio::test]
    async fn a_preflight_has_its_own_answer() {
        let refusals = refusals(OriginPolicy::Any);
        let start =
            format!("OPTIONS /v1/publish/a HTTP/1.1\r\naccess-control-request-method: POST\r\n{PAGE}");
        let answer = told(&refusals, Why::Full, &start).await;
        assert!(answer.starts_with("HTTP/1.1 204 No Content\r\n"), "{answer}");
        assert!(answer.contains("access-control-allow-methods: POST"), "{answer}");
    }
}
