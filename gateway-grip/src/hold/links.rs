//! Requests to the links of streams: one for all clients that ask the same, a few at a time, tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use dashmap::DashMap;
use http::{HeaderMap, HeaderValue, header};
use tokio::sync::{OnceCell, Semaphore};
use websocket_over_http::Answer;

use crate::backend::Backend;

/// Requests to one address at a time.
const MAX_AT_A_TIME: usize = 100;
/// How often a request is tried again, after how long at first, and with how much by chance.
const TRIES_AGAIN: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
const JITTER: Duration = Duration::from_secs(1);
/// Longest answer of a link, in bytes.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// What is asked alike: nothing of one client comes to another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    route: String,
    uri: String,
    last: Vec<String>,
    /// Who asks, as far as an origin tells clients apart.
    who: Vec<HeaderValue>,
}

type Said = Result<Arc<Answer>, String>;

/// All requests to links.
#[derive(Debug, Default)]
pub(crate) struct Links {
    asked: DashMap<Question, Arc<OnceCell<Said>>>,
    turns: DashMap<String, Arc<Semaphore>>,
    pub(crate) counted: Counted,
}

/// What came of them.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) answered: AtomicU64,
    pub(crate) shared: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) failed: AtomicU64,
}

impl Links {
    /// Asks an address of a route, with what the client has of its channels.
    ///
    /// # Errors
    /// Why there is no answer, after all tries.
    pub(crate) async fn ask(
        &self,
        route: &str,
        backend: &Backend,
        uri: &str,
        headers: &HeaderMap,
        last: Vec<String>,
    ) -> Said {
        let identities = [header::COOKIE, header::AUTHORIZATION];
        let who = identities.iter().flat_map(|name| headers.get_all(name)).cloned().collect();
        let question = Question { route: route.to_owned(), uri: uri.to_owned(), last, who };
        let cell = Arc::clone(&self.asked.entry(question.clone()).or_default());
        let is_first = Arc::strong_count(&cell) <= 2;
        if !is_first {
            self.counted.shared.fetch_add(1, Relaxed);
        }
        let said = cell.get_or_init(|| self.tried(&question, backend, headers)).await.clone();
        // Whoever asks from now on asks anew.
        self.asked.remove_if(&question, |_, known| Arc::ptr_eq(known, &cell));
        said
    }

    async fn tried(&self, question: &Question, backend: &Backend, headers: &HeaderMap) -> Said {
        let address = format!("{} {}", question.route, question.uri);
        let turns = Arc::clone(
            &self.turns.entry(address.clone()).or_insert_with(|| Arc::new(Semaphore::new(MAX_AT_A_TIME))),
        );
        let said = match turns.acquire().await {
            Ok(_turn) => self.tried_in_turn(question, backend, headers).await,
            Err(closed) => Err(closed.to_string()),
        };
        self.turns.remove_if(&address, |_, known| Arc::strong_count(known) <= 2);
        said
    }

    async fn tried_in_turn(&self, question: &Question, backend: &Backend, headers: &HeaderMap) -> Said {
        let mut headers = headers.clone();
        for last in &question.last {
            if let Ok(value) = HeaderValue::from_bytes(last.as_bytes()) {
                headers.append("grip-last", value);
            }
        }
        let mut pause = PAUSE;
        for again in 0..=TRIES_AGAIN {
            let why = match backend.get(&question.uri, headers.clone(), MAX_ANSWER_BYTES).await {
                Ok(answer) if (200..300).contains(&answer.status) => {
                    self.counted.answered.fetch_add(1, Relaxed);
                    return Ok(Arc::new(answer));
                }
                Ok(answer) => format!("it was answered with status {}", answer.status),
                Err(failed) => failed.why,
            };
            if again == TRIES_AGAIN {
                self.counted.failed.fetch_add(1, Relaxed);
                tracing::warn!(
                    target: "fanwire::gateway", route = %question.route, error = why,
                    "streams end, as the link of their origin does not answer"
                );
                return Err(why);
            }
            self.counted.retried.fetch_add(1, Relaxed);
            tokio::time::sleep(pause + JITTER.mul_f64(fastrand::f64())).await;
            pause *= 2;
        }
        Err("it was not asked".to_owned())
    }
}

/// A link as a path of the origin: relative to that of the request, or a URL of a host that the client has asked or that
/// is an origin.
///
/// # Errors
/// It leads elsewhere.
pub(crate) fn resolve(base: &str, link: &str, hosts: &[String]) -> Result<String, String> {
    let wrong = |why: &str| format!("the link {link:?} {why}");
    let link = link.split('#').next().unwrap_or_default();
    let below = match link.split_once("://") {
        Some(("http" | "https", rest)) => {
            let at = rest.find(['/', '?']).unwrap_or(rest.len());
            let (host, path) = rest.split_at(at);
            if !hosts.iter().any(|known| known.eq_ignore_ascii_case(host)) {
                return Err(wrong("is of another host"));
            }
            if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
        }
        Some(_) => return Err(wrong("is not of HTTP")),
        None if link.starts_with("//") => return Err(wrong("is of another host")),
        None if link.starts_with('/') => link.to_owned(),
        None => {
            let path = base.split('?').next().unwrap_or_default();
            match link.strip_prefix('?') {
                Some(query) => format!("{path}?{query}"),
                None => {
                    let folder = path.rfind('/').and_then(|at| path.get(..=at)).unwrap_or("/");
                    format!("{folder}{link}")
                }
            }
        }
    };
    let whole = without_dots(&below);
    match whole.parse::<http::uri::PathAndQuery>() {
        Ok(_) => Ok(whole),
        Err(_) => Err(wrong("is no address")),
    }
}

/// A path without the segments `.` and `..` (RFC 3986 §5.2.4).
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => _ = kept.pop(),
            segment => {
                kept.push(segment);
                continue;
            }
        }
        if is_last {
            kept.push("");
        }
    }
    let mut whole = format!("/{}", kept.join("/"));
    if let Some(query) = query {
        whole.push('?');
        whole.push_str(query);
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_relative_to_the_request_and_stays_with_its_hosts() {
        for (link, path) in [
            ("/next", "/next"),
            ("?after=2", "/a/b?after=2"),
            ("c?d=e", "/a/c?d=e"),
            ("./c", "/a/c"),
            ("../c/..", "/"),
            ("../../../c", "/c"),
            ("http://shop.example", "/"),
            ("HTTPS://x", ""),
            ("https://Shop.Example/x?y#z", "/x?y"),
            ("http://shop.example?x", "/?x"),
            ("//shop.example/x", ""),
            ("http://other.example/", ""),
            ("ftp://shop.example/", ""),
        ] {
            let resolved = resolve("/a/b?x=/1", link, &["shop.example".to_owned()]).unwrap_or_default();
            assert_eq!(resolved, path, "{link}");
        }
    }
}
