//! Calls: one request, one deadline, one answer, and whether the host is asked at all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Request, Uri, header};
use outgoing::{Error, Phase};
use parking_lot::Mutex;

use crate::address::Addresses;
use crate::delivery::{Breaker, BreakerState, Call, Trip};

/// Most hosts of which it is known how they do. Of more, those that do well are forgotten.
const MAX_HOSTS: usize = 10_000;

/// Calls functions. A clone is the same caller.
///
/// A request is sent once: on a connection that was kept it is sent again only if the first one gave it back without a
/// byte of it gone. A host that fails is left alone for a while ([`Breaker`]).
#[derive(Clone, Debug)]
pub struct Caller(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: outgoing::Client,
    breakers: Mutex<HashMap<String, Breaker>>,
}

/// What a function answered, whatever its status.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// How long it asks to be left alone (`Retry-After`, in seconds or as a date).
    pub retry_after: Option<Duration>,
    /// All header fields.
    pub headers: HeaderMap,
    /// All of the body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The host was not asked, as it failed too often; when to ask again.
    #[error("the host failed too often and is left alone for a while")]
    Open(Instant),
    /// The host's address may not be connected to.
    #[error("{0}")]
    Forbidden(String),
    /// No connection came about: nothing was sent.
    #[error("{0}")]
    Unreachable(String),
    /// No whole answer in time; the request may have been read.
    #[error("{0}")]
    TimedOut(String),
    /// The answer broke off, or is none; the request may have been read.
    #[error("{0}")]
    Failed(String),
}

impl Caller {
    /// Calls every address, or those that `addresses` permits, judged at each connection once the name was resolved.
    pub fn new(addresses: Option<Addresses>) -> Self {
        Self::resolving_by(addresses, None)
    }

    /// The same, with somebody else than the system who knows the addresses of names.
    pub fn resolving_by(addresses: Option<Addresses>, resolver: Option<Arc<dyn outgoing::Resolve>>) -> Self {
        let mut config = outgoing::Config::default();
        config.resolver = resolver;
        config.addresses = addresses.map(|addresses| Arc::new(addresses) as _);
        // A call has a deadline of its own; these are so short that an address that is silent is known for one.
        config.resolve_timeout = Duration::from_secs(3);
        config.connect_timeout = Duration::from_secs(3);
        config.tls_timeout = Duration::from_secs(4);
        config.answer_timeout = Duration::from_secs(120);
        // How many there are at a time is bounded by who calls.
        config.max_requests_per_host = 20_000;
        config.max_idle_per_host = 256;
        Self(Arc::new(Inner { client: outgoing::Client::new(config), breakers: Mutex::default() }))
    }

    /// Whether a call to `url` would be made now. The permit is to be used soon, with [`Caller::call_with`].
    ///
    /// # Errors
    /// [`CallError::Open`].
    pub fn permit(&self, url: &Uri) -> Result<Permit, CallError> {
        let (host, now) = (host_of(url), Instant::now());
        let mut breakers = self.0.breakers.lock();
        if breakers.len() >= MAX_HOSTS && !breakers.contains_key(&host) {
            breakers.retain(|_, breaker| breaker.state() != BreakerState::Closed);
        }
        let breaker = breakers.entry(host.clone()).or_insert_with(|| Breaker::new(Trip::default()));
        breaker.permit(now).map_err(CallError::Open)?;
        Ok(Permit { caller: self.clone(), host, is_used: false })
    }

    /// How the host of `url` is judged.
    pub fn breaker_state(&self, url: &Uri) -> BreakerState {
        self.0.breakers.lock().get(&host_of(url)).map_or(BreakerState::Closed, Breaker::state)
    }

    /// Sends a request; the answer has at most `max_bytes`, and all is done `within` a time.
    ///
    /// # Errors
    /// [`CallError`] says whether the request may have been read.
    ///
    /// # Cancel safety
    /// A future that is dropped may have sent the request.
    pub async fn call(
        &self,
        request: Request<Bytes>,
        max_bytes: usize,
        within: Duration,
    ) -> Result<Answer, CallError> {
        let permit = self.permit(request.uri())?;
        self.call_with(permit, request, max_bytes, within).await
    }

    /// The same, by a permit that was asked for before.
    ///
    /// # Errors
    /// As [`Caller::call`], never [`CallError::Open`].
    ///
    /// # Cancel safety
    /// As [`Caller::call`].
    pub async fn call_with(
        &self,
        mut permit: Permit,
        request: Request<Bytes>,
        max_bytes: usize,
        within: Duration,
    ) -> Result<Answer, CallError> {
        let answered = self.send(request, max_bytes, within).await;
        let ended = match &answered {
            Ok(answer) if answer.status < 500 => Some(Call::Answered),
            Ok(_) | Err(CallError::TimedOut(_) | CallError::Failed(_)) => Some(Call::Failed),
            Err(CallError::Unreachable(_)) => Some(Call::Unreachable),
            // It says nothing about the host.
            Err(_) => None,
        };
        if let Some(ended) = ended {
            permit.is_used = true;
            self.record(&permit.host, ended);
        }
        answered
    }

    /// The same for who has a [`Breaker`] of its own, for something smaller than a host: nobody is asked whether the
    /// host does well, and nobody is told.
    ///
    /// # Errors
    /// As [`Caller::call_with`].
    ///
    /// # Cancel safety
    /// As [`Caller::call`].
    pub async fn send(
        &self,
        request: Request<Bytes>,
        max_bytes: usize,
        within: Duration,
    ) -> Result<Answer, CallError> {
        let answer = self.0.client.fetch(request, max_bytes, within).await.map_err(|error| meant(&error))?;
        let (head, body) = answer.into_parts();
        let retry_after = retry_after(&head.headers);
        Ok(Answer { status: head.status.as_u16(), retry_after, headers: head.headers, body })
    }

    fn record(&self, host: &str, ended: Call) {
        let mut breakers = self.0.breakers.lock();
        let Some(breaker) = breakers.get_mut(host) else { return };
        if breaker.record(Instant::now(), ended) {
            let state = breaker.state();
            drop(breakers);
            match state {
                BreakerState::Closed => tracing::info!(host, "a host that is called answers again"),
                _ => tracing::warn!(host, "a host that is called fails and is left alone for a while"),
            }
        }
    }
}

/// The right to one call. Dropped without it, another one may go instead.
#[derive(Debug)]
pub struct Permit {
    caller: Caller,
    host: String,
    is_used: bool,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_used
            && let Some(breaker) = self.caller.0.breakers.lock().get_mut(&self.host)
        {
            breaker.forgo(Instant::now());
        }
    }
}

/// Name and port: those of one host that do not work are others than those that do.
fn host_of(url: &Uri) -> String {
    let host = url.host().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
    format!("{host}:{port}")
}

/// Whether the request was sent decides what may be done about an error.
fn meant(error: &Error) -> CallError {
    let why = error.to_string();
    match error {
        Error::Forbidden { .. } => CallError::Forbidden(why),
        Error::Address { .. } | Error::Resolve { .. } | Error::Connect(_) => CallError::Unreachable(why),
        Error::Proxy { .. } | Error::Tls { .. } => CallError::Unreachable(why),
        Error::Timeout { phase: Phase::Turn | Phase::Resolve | Phase::Connect | Phase::Tls, .. } => {
            CallError::Unreachable(why)
        }
        Error::Timeout { .. } => CallError::TimedOut(why),
        _ => CallError::Failed(why),
    }
}

/// `Retry-After`, in seconds or as a date; what is neither is none.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let at = httpdate::parse_http_date(text).ok()?;
            Some(at.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let said = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(said("7"), Some(Duration::from_secs(7)));
        assert_eq!(said("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        assert!(said(&later).is_some_and(|wait| (90..=100).contains(&wait.as_secs())));
        assert_eq!(said("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn a_host_that_nobody_listens_at_is_left_alone_after_five_calls() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let caller = Caller::new(None);
        let call = || {
            let request = Request::post(&url).body(Bytes::new()).unwrap();
            caller.call(request, 1 << 10, Duration::from_secs(5))
        };
        for _ in 0..5 {
            assert!(matches!(call().await, Err(CallError::Unreachable(_))));
        }
        assert!(matches!(call().await, Err(CallError::Open(_))));
        assert_eq!(caller.breaker_state(&url.parse().unwrap()), BreakerState::Open);
    }

    #[tokio::test]
    async fn what_the_policy_forbids_is_not_connected_to_and_says_nothing_about_the_host() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
        let caller = Caller::new(Some(Addresses::default()));
        for _ in 0..10 {
            let request = Request::post(&url).body(Bytes::new()).unwrap();
            let refused = caller.call(request, 1 << 10, Duration::from_secs(5)).await;
            assert!(matches!(refused, Err(CallError::Forbidden(_))), "{refused:?}");
        }
        let nobody = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(nobody.is_err());
    }

    /// A name that leads to another address each time: those of `answers` in turn.
    #[derive(Debug)]
    struct Rebinding {
        answers: Vec<Vec<std::net::IpAddr>>,
        asked: AtomicUsize,
    }

    impl outgoing::Resolve for Rebinding {
        fn resolve(&self, _: &str, port: u16) -> outgoing::Resolved {
            let turn = self.asked.fetch_add(1, SeqCst);
            let addresses = self.answers[turn % self.answers.len()].iter();
            let addresses = addresses.map(|address| (*address, port).into()).collect();
            Box::pin(async move { Ok(addresses) })
        }
    }

    /// Answers each connection once, with its own address.
    async fn answering(address: &str, port: u16) -> tokio::net::TcpListener {
        tokio::net::TcpListener::bind((address, port)).await.unwrap()
    }

    #[tokio::test]
    async fn a_name_that_is_bound_anew_leads_to_no_address_that_was_not_judged() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let allowed = answering("127.0.0.2", 0).await;
        let port = allowed.local_addr().unwrap().port();
        let inner = answering("127.0.0.1", port).await;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = allowed.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(answer).await;
            }
        });
        let of = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let answers = vec![
            of(&["127.0.0.2"]),
            of(&["127.0.0.1"]),
            of(&["127.0.0.1", "127.0.0.2"]),
            of(&["::ffff:127.0.0.1", "169.254.169.254"]),
        ];
        let resolver = Arc::new(Rebinding { answers, asked: AtomicUsize::new(0) });
        let addresses = Addresses {
            allow: vec!["127.0.0.2".parse().unwrap()],
            allow_ports: vec![port],
            ..Addresses::default()
        };
        let caller = Caller::resolving_by(Some(addresses), Some(resolver.clone()));
        for (turn, reaches) in [true, false, true, false].into_iter().enumerate() {
            let request =
                Request::post(format!("http://rebound.example:{port}/")).body(Bytes::new()).unwrap();
            let outcome = caller.call(request, 1 << 10, Duration::from_secs(5)).await;
            match outcome {
                Ok(answer) => assert!(reaches && answer.status == 204, "{turn}"),
                Err(CallError::Forbidden(_)) => assert!(!reaches, "{turn}"),
                Err(error) => panic!("{turn}: {error}"),
            }
            let asked = resolver.asked.load(SeqCst);
            assert_eq!(asked, turn + 1, "what is judged is what is dialled: nobody asks twice");
        }
        let nobody = tokio::time::timeout(Duration::from_millis(50), inner.accept()).await;
        assert!(nobody.is_err());
    }
}
