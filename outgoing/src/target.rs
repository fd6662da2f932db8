//! Where a request goes.

use std::net::Ipv6Addr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Uri, header};
use percent_encoding::percent_decode_str;

use crate::error::Error;
use crate::payload::Payload;

/// Where a request goes, as far as connections care.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Target {
    /// Whether TLS is spoken there.
    pub(crate) is_tls: bool,
    /// A name in lower case, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// A request that is ready for either version of HTTP.
#[derive(Debug)]
pub(crate) struct Ready {
    request: Request<Payload>,
    /// Absolute.
    uri: Uri,
}

impl Target {
    /// Splits a request's URL from the request. Credentials that stand in the URL become its header.
    pub(crate) fn of(request: Request<Bytes>) -> Result<(Self, Ready), Error> {
        let is_empty = request.body().is_empty();
        let mut request = request.map(Payload::full);
        request.headers_mut().remove(header::HOST);
        let agent = HeaderValue::from_static(concat!("Fanwire/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().entry(header::USER_AGENT).or_insert(agent);
        // A method with a body says how long it is also where it is empty (RFC 9110 §8.6): many a handler reads that
        // header, and some servers ask for it.
        if is_empty && matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        }
        Self::of_any(request)
    }

    /// The same for whatever goes with it, and with the header fields as they are.
    pub(crate) fn of_any(request: Request<Payload>) -> Result<(Self, Ready), Error> {
        let (mut head, body) = request.into_parts();
        let mut parts = head.uri.into_parts();
        let authority = parts.authority.take();
        let shown = authority.as_ref().map_or("", |authority| without_credentials(authority.as_str()).1);
        let wrong = |why| Error::Address { url: shown.to_owned(), why };
        let is_tls = match &parts.scheme {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(wrong("http:// and https:// are spoken")),
        };
        let authority = authority.as_ref().ok_or_else(|| wrong("it names no host"))?;
        let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        // As the URL standard has it: what is in brackets is an address, without a zone.
        if authority.host().starts_with('[') && host.parse::<Ipv6Addr>().is_err() {
            return Err(wrong("its host is neither a name nor an address"));
        }
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let (credentials, address) = without_credentials(authority.as_str());
        if let Some(credentials) = credentials
            && !head.headers.contains_key(header::AUTHORIZATION)
        {
            head.headers.insert(header::AUTHORIZATION, basic(credentials)?);
        }
        let bare: Authority = address.parse().map_err(|_| wrong("its host is no name"))?;
        parts.authority = Some(bare);
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        let uri = Uri::from_parts(parts).map_err(|_| wrong("it is no URL"))?;
        head.uri = Uri::default();
        let request = Request::from_parts(head, body);
        Ok((Target { is_tls, host, port }, Ready { request, uri }))
    }
}

impl Ready {
    /// As HTTP/1.1 has it: the path, and the host in a header.
    pub(crate) fn for_http1(mut self) -> (Request<Payload>, Uri) {
        let path = self.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        *self.request.uri_mut() = Uri::from(path);
        if !self.request.headers().contains_key(header::HOST)
            && let Some(host) =
                self.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok())
        {
            self.request.headers_mut().insert(header::HOST, host);
        }
        (self.request, self.uri)
    }

    /// As HTTP/2 has it: scheme and host beside the path.
    pub(crate) fn for_http2(mut self) -> (Request<Payload>, Uri) {
        self.request.headers_mut().remove(header::HOST);
        *self.request.uri_mut() = self.uri.clone();
        (self.request, self.uri)
    }

    /// The request with its URL, as it was before.
    pub(crate) fn into_request(mut self) -> Request<Payload> {
        *self.request.uri_mut() = self.uri;
        self.request
    }

    /// What a connection gave back.
    pub(crate) fn again(request: Request<Payload>, uri: Uri) -> Self {
        Ready { request, uri }
    }
}

/// Name and password before an address, and the address.
pub(crate) fn without_credentials(authority: &str) -> (Option<&str>, &str) {
    match authority.rsplit_once('@') {
        Some((credentials, address)) => (Some(credentials), address),
        None => (None, authority),
    }
}

fn basic(credentials: &str) -> Result<HeaderValue, Error> {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let mut pair: Vec<u8> = percent_decode_str(user).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(password));
    let text = format!("Basic {}", STANDARD.encode(pair));
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| Error::Address { url: String::new(), why: "its credentials are no header" })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Result<(Target, Ready), Error> {
        Target::of(Request::get(url).body(Bytes::new()).unwrap())
    }

    #[test]
    fn a_url_is_scheme_host_and_port_and_a_request_for_its_path() {
        for (url, is_tls, host, port, path, header) in [
            ("http://A.example", false, "a.example", 80, "/", "A.example"),
            ("https://a.example/b?c", true, "a.example", 443, "/b?c", "a.example"),
            ("http://[::1]:81/", false, "::1", 81, "/", "[::1]:81"),
        ] {
            let (target, ready) = of(url).unwrap();
            assert_eq!(target, Target { is_tls, host: host.into(), port }, "{url}");
            let (request, uri) = ready.for_http1();
            assert_eq!(
                (&*request.uri().to_string(), request.headers()["host"].to_str().unwrap()),
                (path, header),
                "{url}"
            );
            let (request, _) = Ready::again(request, uri).for_http2();
            assert_eq!(request.uri().authority().unwrap(), header, "{url}");
            assert!(!request.headers().contains_key("host"), "{url}");
        }
    }

    #[test]
    fn credentials_of_the_url_are_a_header_and_stand_nowhere_else() {
        let (_, ready) = of("http://ann:p%40ss@a.example/x").unwrap();
        let (request, uri) = ready.for_http1();
        assert_eq!(request.headers()["authorization"], "Basic YW5uOnBAc3M=");
        assert_eq!(
            (&request.headers()["host"], uri.to_string().as_str()),
            (&"a.example".parse().unwrap(), "http://a.example/x")
        );
        let request = Request::get("http://ann:x@a.example/").header("authorization", "Bearer t");
        let (_, ready) = Target::of(request.body(Bytes::new()).unwrap()).unwrap();
        assert_eq!(ready.for_http1().0.headers()["authorization"], "Bearer t");
        let said = of("ftp://ann:secret@a.example/").unwrap_err().to_string();
        assert_eq!(said, "`a.example` is no address: http:// and https:// are spoken");
    }

    #[test]
    fn an_empty_body_has_a_length_where_there_may_be_one() {
        for (method, length) in [("POST", Some("0")), ("PUT", Some("0")), ("GET", None), ("DELETE", None)] {
            let request =
                Request::builder().method(method).uri("http://a.example/").body(Bytes::new()).unwrap();
            let (request, _) = Target::of(request).unwrap().1.for_http1();
            let said = request.headers().get("content-length").map(|said| said.to_str().unwrap());
            assert_eq!(said, length, "{method}");
        }
    }

    #[test]
    fn what_cannot_be_called_is_said() {
        for url in [
            "/path",
            "ftp://a.example/",
            "a.example:80",
            "http://[::1%25lo]/",
            "http://[fe80::1%251]:80/",
            "http://[a.example]/",
        ] {
            assert!(matches!(of(url), Err(Error::Address { .. })), "{url}");
        }
    }
}
