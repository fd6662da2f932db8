//! The server's address, and what every request to it says.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Request, Uri, header};

use crate::arguments::ServerArguments;
use crate::failure::Failure;
use crate::tls::Tls;

/// One server, and what is said to it on every request.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// As people read it, without credentials.
    pub(crate) url: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// With `https://`.
    pub(crate) tls: Option<Tls>,
    /// What stands before the path where a proxy mounts the server below `/`.
    prefix: String,
    headers: HeaderMap,
}

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
        let default_port = match uri.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return Err(wrong("http:// and https:// are spoken")),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?;
        if uri.query().is_some() || uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(wrong("neither a query nor credentials belong there"));
        }
        let port = uri.port_u16().unwrap_or(default_port);
        let mut headers = HeaderMap::new();
        let authority = uri.authority().map_or(host, |authority| authority.as_str());
        headers.insert(
            header::HOST,
            HeaderValue::from_str(authority).map_err(|_| wrong("its host is no name"))?,
        );
        if let Some(value) = authorization(token, user)? {
            headers.insert(header::AUTHORIZATION, value);
        }
        let host = host.trim_matches(['[', ']']);
        let tls = match uri.scheme_str() {
            Some("https") => Some(Tls::new(host, arguments.trust())?),
            _ => None,
        };
        Ok(Endpoint {
            url: text.trim_end_matches('/').to_owned(),
            host: host.to_owned(),
            port,
            tls,
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

    pub(crate) fn foreign(&self, why: impl Into<String>) -> Failure {
        Failure::Foreign { url: self.url.clone(), why: why.into() }
    }

    pub(crate) fn unreachable(&self, why: &dyn std::fmt::Display) -> Failure {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Result<Endpoint, String> {
        let arguments = ServerArguments {
            url: url.to_owned(),
            token: Some("t".into()),
            user: None,
            ca_file: None,
            insecure: false,
        };
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
            ("https://proxy.example", "proxy.example", 443, "/sse"),
            ("https://[::1]:8443/x", "::1", 8443, "/x/sse"),
        ];
        for (url, host, port, target) in cases {
            let endpoint = endpoint(url).unwrap();
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, port), "{url}");
            assert_eq!(endpoint.tls.is_some(), url.starts_with("https:"), "{url}");
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
