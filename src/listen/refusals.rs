//! What a client is told that the listener has no room or no patience for.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use front::Refusal;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Version, header};
use http_edge::{Body, HostPolicy, Problem, Response, X_REQUEST_ID, read_body, request_id, response_head};
use link::NetStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::accept;
use super::addresses::AddressLimits;
use crate::Fronts;

/// How long a refused peer may take to say what it wants.
const PATIENCE: Duration = Duration::from_millis(300);
/// How much of what it says is read for that, in bytes.
const MAX_START_BYTES: usize = 8 * 1024;
/// How many headers may be in it.
const MAX_HEADERS: usize = 100;
/// The longest answer: ours are far shorter.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Refuses as the front of the path would: with the headers without which a page may not read the answer, and to an
/// event stream with an answer that a browser comes back after.
#[derive(Clone, Debug)]
pub(crate) struct Refusals {
    fronts: Fronts,
    hosts: HostPolicy,
    /// Names of what is listened to that every policy answers to.
    ours: Vec<Box<[u8]>>,
    misdirected: Arc<AtomicU64>,
    open: Arc<AtomicU64>,
}

impl Refusals {
    pub(crate) fn new(fronts: Fronts) -> Self {
        Refusals {
            fronts,
            hosts: HostPolicy::Any,
            ours: Vec::new(),
            misdirected: Arc::default(),
            open: Arc::default(),
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
    pub(crate) fn misdirected(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.misdirected)
    }

    /// Connections on which HTTP is spoken now.
    pub(crate) fn open(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.open)
    }

    /// Whether a request of this address is answered at all. The rate does not count `OPTIONS`: its answer costs as
    /// little as a refusal, and a page whose preflight failed could not read why. Nor does it count health and
    /// readiness: who restarts a server by them shares an address with its clients.
    pub(crate) fn admit<B>(
        &self,
        addresses: &AddressLimits,
        address: IpAddr,
        request: &Request<B>,
    ) -> Result<(), Box<Refusal>> {
        if !self.names_us(request)
            && let Err(name) = self.hosts.check(request.uri(), request.headers())
        {
            return Err(Box::new(self.other_host(name)));
        }
        if request.method() == Method::OPTIONS || matches!(request.uri().path(), "/healthz" | "/readyz") {
            return Ok(());
        }
        addresses.admit(address).map_err(|wait| Box::new(Refusal::too_fast(wait)))
    }

    fn other_host(&self, name: &str) -> Refusal {
        let refused = self.misdirected.fetch_add(1, Relaxed) + 1;
        // An operator who forgot a name sees it here; a page that tries for a day does not fill the log.
        if refused.is_power_of_two() {
            tracing::warn!(host = %name, refused, "request for a host that is not in `server.hosts`");
        }
        Refusal::other_host(name)
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
    pub(crate) async fn refuse(&self, refusal: &Refusal, request: Parts) -> Response {
        let front = self.fronts.of(request.uri.path());
        match front.and_then(|front| front.refuse(refusal, &request)) {
            Some(answer) => answer.await,
            None => self.readable(&refusal.problem, &request),
        }
    }

    /// The answer to a request that is refused before any front looks at it, for the pages that may read what is there.
    pub(crate) fn readable(&self, problem: &Problem, request: &Parts) -> Response {
        let mut response = problem.response();
        let answer = response.headers_mut();
        if let Some((origins, cookies)) = self.fronts.readers_of(request.uri.path()) {
            origins.cors_headers(&request.headers, cookies, answer);
        }
        answer.insert(X_REQUEST_ID, request_id(&request.headers));
        response
    }

    /// Tells a peer that was just accepted why it is closed, in HTTP/1.1. Hyper never sees it, so that it costs next to
    /// nothing.
    pub(crate) async fn tell(&self, mut stream: NetStream, refusal: &Refusal) -> io::Result<()> {
        let mut start = Vec::new();
        // An answer before the question confuses clients; a peer that asks nothing is told all the same.
        let _ = timeout(PATIENCE, read_start(&mut stream, &mut start)).await;
        stream.write_all(&self.to_start(refusal, &start).await).await?;
        accept::close(stream).await
    }

    /// The answer to the start of a connection. Without a whole head nobody knows what page asks, so none may read it.
    async fn to_start(&self, refusal: &Refusal, start: &[u8]) -> Bytes {
        let (response, is_head) = match parse(start) {
            Some(request) if request.method() == Method::OPTIONS => {
                (self.fronts.handle(request).await, false)
            }
            Some(request) => {
                let (parts, _) = request.into_parts();
                let is_head = parts.method == Method::HEAD;
                (self.refuse(refusal, parts).await, is_head)
            }
            None => (refusal.problem.response(), false),
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

/// Reads until there is a whole head, or as much as is looked at.
async fn read_start(stream: &mut NetStream, start: &mut Vec<u8>) -> io::Result<()> {
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
    use http_edge::OriginPolicy;

    use super::*;
    use crate::Config;

    fn refusals(origins: OriginPolicy) -> Refusals {
        let mut config = Config::default();
        config.api.origins = origins.clone();
        config.sse.origins = origins.clone();
        config.bayeux.origins = origins;
        let broker = Broker::new(broker_core::Config::default());
        Refusals::new(Fronts::new(&broker, &config))
    }

    async fn told(refusals: &Refusals, refusal: Refusal, start: &str) -> String {
        String::from_utf8(refusals.to_start(&refusal, start.as_bytes()).await.to_vec()).expect("UTF-8")
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
                let answer = told(&listed, Refusal::server_full(), &asked).await;
                assert!(
                    answer.contains("\r\naccess-control-allow-origin: https://app.example\r\n"),
                    "{asked}{answer}"
                );
                assert!(answer.contains("\r\nvary: Origin\r\n"), "{asked}{answer}");
                assert!(answer.contains("\r\naccess-control-allow-credentials: true\r\n"), "{asked}{answer}");
                let answer = told(&foreign, Refusal::address_full(), &asked).await;
                assert!(!answer.contains("access-control"), "{asked}{answer}");
                assert!(answer.contains("\r\nvary: Origin\r\n"), "{asked}{answer}");
            }
        }
    }

    #[tokio::test]
    async fn every_answer_has_its_length_its_code_and_the_time_to_come_back() {
        let refusals = refusals(OriginPolicy::Any);
        let ask = |method| format!("{method} /v1/publish/a HTTP/1.1\r\nhost: x\r\n\r\n");
        for (refusal, start, status, code) in [
            (
                Refusal::server_full as fn() -> Refusal,
                ask("POST"),
                "503 Service Unavailable",
                "too_many_connections",
            ),
            (Refusal::address_full, ask("POST"), "429 Too Many Requests", "too_many_connections"),
            (Refusal::server_full, String::new(), "503 Service Unavailable", "too_many_connections"),
            (Refusal::server_full, "POST /v1".to_owned(), "503 Service Unavailable", "too_many_connections"),
            (
                Refusal::address_full,
                "\u{10}\u{1}".to_owned(),
                "429 Too Many Requests",
                "too_many_connections",
            ),
            (
                Refusal::server_full,
                "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
                "503 Service Unavailable",
                "too_many_connections",
            ),
        ] {
            let answer = told(&refusals, refusal(), &start).await;
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{start:?} {head}");
            assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{start:?} {head}");
            assert!(
                head.contains("\r\nretry-after: 5\r\n") && head.contains("connection: close"),
                "{start:?} {head}"
            );
            assert!(body.contains(&format!("\"code\":\"{code}\"")), "{start:?} {body}");
        }
        let answer = told(&refusals, Refusal::server_full(), &ask("HEAD")).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("\r\ncontent-length: 1") && body.is_empty(), "{answer}");
    }

    #[tokio::test]
    async fn an_event_stream_is_told_to_come_back_and_ends() {
        let refusals = refusals(OriginPolicy::Any);
        for version in ["HTTP/1.0", "HTTP/1.1"] {
            let start = format!("GET /sse/a?x=1 {version}\r\n{PAGE}");
            let answer = told(&refusals, Refusal::address_full(), &start).await;
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
                let response = refusals.refuse(&why, request.into_parts().0).await;
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
        let answer = told(&refusals, Refusal::server_full(), &start).await;
        assert!(answer.starts_with("HTTP/1.1 204 No Content\r\n"), "{answer}");
        assert!(answer.contains("access-control-allow-methods: POST"), "{answer}");
    }
}
