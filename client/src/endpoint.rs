//! The server's address, and what every request to it says.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Request, Uri, header};
use outgoing::{Authorities, Client, Error, Trust};

use crate::arguments::ServerArguments;
use crate::context::Context;
use crate::failure::Failure;

/// How long each part of connecting may take: somebody waits.
const PART_LIMIT: Duration = Duration::from_secs(5);

/// One server, and what is said to it on every request.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// As people read it, without credentials.
    pub(crate) url: String,
    pub(crate) client: Client,
    base: Uri,
    /// Of all requests, with what a proxy mounts the server below; no slash at the end.
    root: String,
    headers: HeaderMap,
}

impl Endpoint {
    /// The server that the arguments, the environment or a saved context mean.
    pub(crate) fn new(arguments: &ServerArguments) -> Result<Self, Failure> {
        Self::at(&arguments.resolve()?)
    }

    /// This server, asked with these credentials.
    pub(crate) fn at(context: &Context) -> Result<Self, Failure> {
        Self::for_many(context, 1)
    }

    /// The same, by so many requests at a time.
    pub(crate) fn for_many(context: &Context, requests: usize) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure::Arguments(format!("`{}` is no address: {why}", context.url));
        let text =
            if context.url.contains("://") { context.url.clone() } else { format!("http://{}", context.url) };
        let uri: Uri = text.parse().map_err(|_| wrong("not a URL such as http://127.0.0.1:8080"))?;
        if uri.host().is_none_or(str::is_empty) {
            return Err(wrong("it names no host"));
        }
        if uri.query().is_some() || uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(wrong("neither a query nor credentials belong there"));
        }
        match Client::check(&uri) {
            Ok(()) => {}
            Err(Error::Address { why, .. }) => return Err(wrong(why)),
            Err(error) => return Err(wrong(&error.to_string())),
        }
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization(context.token.clone(), context.user.clone())? {
            headers.insert(header::AUTHORIZATION, value);
        }
        // A file of authorities may be named for all servers, and need not be there for this one.
        let trust = if uri.scheme_str() == Some("https") { trust(context)? } else { Trust::System };
        let mut config = outgoing::Config::default();
        config.trust = trust;
        config.resolve_timeout = PART_LIMIT;
        config.connect_timeout = PART_LIMIT;
        config.tls_timeout = PART_LIMIT;
        config.max_requests_per_host = requests;
        config.max_idle_per_host = requests;
        let scheme = uri.scheme_str().unwrap_or("http");
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let root = format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/'));
        let url = text.trim_end_matches('/').to_owned();
        Ok(Endpoint { url, client: Client::new(config), base: uri, root, headers })
    }

    /// A request for `path_and_query`, which begins with a slash.
    pub(crate) fn request(&self, method: http::Method, path_and_query: &str) -> http::request::Builder {
        let mut request = Request::builder().method(method).uri(format!("{}{path_and_query}", self.root));
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&self.headers);
        }
        request
    }

    /// Whether what answers a plain request would rather speak TLS.
    pub(crate) async fn may_want_tls(&self) -> bool {
        self.base.scheme_str() == Some("http") && self.client.speaks_tls(&self.base).await
    }

    pub(crate) fn foreign(&self, why: impl Into<String>) -> Failure {
        Failure::Foreign { url: self.url.clone(), why: why.into() }
    }

    pub(crate) fn unreachable(&self, why: &dyn std::fmt::Display) -> Failure {
        Failure::Unreachable { url: self.url.clone(), why: why.to_string() }
    }
}

fn trust(context: &Context) -> Result<Trust, Failure> {
    match &context.ca_file {
        _ if context.insecure => Ok(Trust::Anyone),
        Some(file) => match Authorities::read(file) {
            Ok(authorities) => Ok(Trust::Authorities(authorities)),
            Err(error) => Err(Failure::Arguments(error.to_string())),
        },
        None => Ok(Trust::System),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Result<Endpoint, String> {
        let context = Context { url: url.to_owned(), token: Some("t".into()), ..Context::default() };
        Endpoint::at(&context).map_err(|failure| failure.to_string())
    }

    #[test]
    fn an_address_has_host_port_and_perhaps_a_prefix() {
        let cases = [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/sse"),
            ("127.0.0.1:8080/", "http://127.0.0.1:8080/sse"),
            ("localhost", "http://localhost/sse"),
            ("http://[::1]:1/", "http://[::1]:1/sse"),
            ("http://proxy.example/fanwire/", "http://proxy.example/fanwire/sse"),
            ("https://proxy.example", "https://proxy.example/sse"),
            ("https://[::1]:8443/x", "https://[::1]:8443/x/sse"),
        ];
        for (url, target) in cases {
            let endpoint = endpoint(url).unwrap();
            let request = endpoint.request(http::Method::GET, "/sse").body(()).unwrap();
            assert_eq!(request.uri(), target, "{url}");
            assert_eq!(request.headers()["authorization"], "Bearer t");
        }
    }

    #[test]
    fn what_is_no_address_is_said() {
        for (url, why) in [
            ("ftp://a", "http:// and https:// are spoken"),
            ("https://a_b!", "no name that a certificate can be for"),
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
