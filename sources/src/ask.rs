//! One request, and those that redirects ask for.

use std::time::Duration;

use bytes::Bytes;
use gateway::address::Addresses;
use gateway::client::retry_after;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use outgoing::{Body, Client, Error};

use crate::state::Condition;

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 3;

/// What calls out, for URLs of the file and for those of others.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    trusted: Client,
    judged: Client,
    addresses: Addresses,
}

/// Why there is nothing to read.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) condition: Condition,
    pub(crate) detail: String,
    pub(crate) status: Option<StatusCode>,
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    pub(crate) fn new(condition: Condition, detail: impl Into<String>) -> Self {
        Self { condition, detail: detail.into(), status: None, retry_after: None }
    }

    /// Of an answer that carries no messages.
    pub(crate) fn of_status<B>(answer: &Response<B>) -> Self {
        Self {
            status: Some(answer.status()),
            retry_after: retry_after(answer.headers()),
            ..Self::new(Condition::BadStatus, format!("status {}", answer.status().as_u16()))
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let condition = match &error {
            Error::Forbidden { .. } => Condition::Policy,
            Error::Timeout { .. } => Condition::Timeout,
            Error::Tls { .. } => Condition::TlsError,
            Error::TooLarge { .. } => Condition::TooLarge,
            Error::NotHttp(_) => Condition::Protocol,
            Error::Status(_) => Condition::BadStatus,
            _ => Condition::ConnectionFailed,
        };
        Self::new(condition, error.to_string())
    }
}

/// What is asked for.
pub(crate) struct Asked<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a Uri,
    /// Those that somebody configured, which may be secrets.
    pub(crate) headers: &'a [(HeaderName, HeaderValue)],
    pub(crate) body: Bytes,
    /// Whether the URL stands in the file.
    pub(crate) is_trusted: bool,
}

impl Clients {
    pub(crate) fn new(addresses: Addresses) -> Self {
        let mut config = outgoing::Config::default();
        config.resolve_timeout = Duration::from_secs(5);
        // A long poll is answered when there is something.
        config.answer_timeout = Duration::from_secs(120);
        // Every event stream is one.
        config.max_requests_per_host = 1_000;
        let trusted = Client::new(config.clone());
        config.addresses = Some(std::sync::Arc::new(addresses.clone()));
        Self { trusted, judged: Client::new(config), addresses }
    }

    /// The client for a URL.
    ///
    /// # Errors
    /// [`Condition::Policy`] where it is certain that it may not be connected to.
    pub(crate) fn of(&self, url: &Uri, is_trusted: bool) -> Result<&Client, Failure> {
        if is_trusted {
            return Ok(&self.trusted);
        }
        let judged = self.addresses.judge_url(url);
        judged.map_err(|denied| Failure::new(Condition::Policy, denied.to_string()))?;
        Ok(&self.judged)
    }

    /// Asks, and follows redirects. With the answer where it came from.
    pub(crate) async fn ask(
        &self,
        asked: &Asked<'_>,
        own: &HeaderMap,
    ) -> Result<(Response<Body>, Uri), Failure> {
        let (mut url, mut method, mut body) = (asked.url.clone(), asked.method.clone(), asked.body.clone());
        let mut is_trusted = asked.is_trusted;
        for _ in 0..=MAX_REDIRECTS {
            let client = self.of(&url, is_trusted)?;
            let mut request = Request::new(body.clone());
            (*request.method_mut(), *request.uri_mut()) = (method.clone(), url.clone());
            let headers = request.headers_mut();
            headers.extend(own.iter().map(|(name, value)| (name.clone(), value.clone())));
            if is_same_host(&url, asked.url) {
                headers.extend(asked.headers.iter().cloned());
            }
            let answer = client.send(request).await?;
            let Some(next) = redirected(&answer, &url)? else { return Ok((answer, url)) };
            // See the Fetch standard: what follows a 303, or a POST that has moved, is a GET.
            let turns = answer.status() == StatusCode::SEE_OTHER
                || (matches!(answer.status().as_u16(), 301 | 302) && method == Method::POST);
            if turns {
                (method, body) = (Method::GET, Bytes::new());
            }
            // Where it leads to stands in no file.
            is_trusted &= is_same_host(&next, asked.url);
            url = next;
        }
        Err(Failure::new(Condition::Protocol, format!("more than {MAX_REDIRECTS} redirects")))
    }
}

fn redirected<B>(answer: &Response<B>, url: &Uri) -> Result<Option<Uri>, Failure> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let to = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let next = to.and_then(|to| joined(url, to));
    next.map(Some).ok_or_else(|| Failure::new(Condition::Protocol, "a redirect that leads nowhere"))
}

/// Whether two URLs are of one scheme, host and port: what is secret to one is so to the other.
pub(crate) fn is_same_host(one: &Uri, other: &Uri) -> bool {
    let parts = |url: &Uri| {
        let is_tls = url.scheme_str() == Some("https");
        let host = url.host().unwrap_or_default().to_ascii_lowercase();
        (is_tls, host, url.port_u16().unwrap_or(if is_tls { 443 } else { 80 }))
    };
    parts(one) == parts(other)
}

/// What a reference means at a URL (RFC 3986 §5.2, without the removal of dot segments, which servers do as well).
pub(crate) fn joined(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().unwrap_or_default();
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let path = base.path();
    let text = if reference.contains("://") {
        reference.to_owned()
    } else if reference.starts_with("//") {
        format!("{scheme}:{reference}")
    } else if reference.starts_with('/') {
        format!("{scheme}://{authority}{reference}")
    } else if reference.is_empty() || reference.starts_with('?') {
        let query = if reference.is_empty() { base.query().map(|query| format!("?{query}")) } else { None };
        format!("{scheme}://{authority}{path}{}", query.as_deref().unwrap_or(reference))
    } else {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{reference}")
    };
    gateway::written::url(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_mean_what_they_mean_to_a_browser() {
        let base: Uri = "https://a.example:81/b/c?d=e".parse().unwrap();
        for (reference, meant) in [
            ("/x", Some("https://a.example:81/x")),
            ("x?y", Some("https://a.example:81/b/x?y")),
            ("?y", Some("https://a.example:81/b/c?y")),
            ("", Some("https://a.example:81/b/c?d=e")),
            ("//b.example/x", Some("https://b.example/x")),
            ("http://c.example/#z", Some("http://c.example/")),
            ("https://u:p@c.example/", None),
            ("ftp://c.example/", None),
        ] {
            assert_eq!(joined(&base, reference).map(|url| url.to_string()).as_deref(), meant, "{reference}");
        }
    }

    #[test]
    fn a_host_is_scheme_name_and_port() {
        let is_same = |one: &str, other: &str| is_same_host(&one.parse().unwrap(), &other.parse().unwrap());
        assert!(is_same("http://A.example/x", "http://a.example:80/y"));
        for other in ["https://a.example/", "http://a.example:81/", "http://b.example/"] {
            assert!(!is_same("http://a.example/", other), "{other}");
        }
    }
}
