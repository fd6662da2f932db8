//! Proxies that the environment names.

use std::net::IpAddr;

use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;

use crate::config::{Config, Proxies};
use crate::connection::Io;
use crate::error::Error;
use crate::target::{Target, without_credentials};

/// Which requests go through which proxy.
#[derive(Debug)]
pub(crate) struct Routes(pub(crate) Option<Matcher>);

/// A proxy, and what is said to it.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) target: Target,
    authorization: Option<HeaderValue>,
    /// As people read it.
    shown: String,
}

impl Routes {
    pub(crate) fn new(config: &Config) -> Self {
        // It is the proxy that resolves names then, and a policy would not see the addresses.
        let wanted = config.proxies == Proxies::Environment && config.addresses.is_none();
        Self(wanted.then(Matcher::from_env))
    }

    /// The proxy on the way to a target.
    pub(crate) fn to(&self, target: &Target) -> Result<Option<Proxy>, Error> {
        let Some(matcher) = &self.0 else { return Ok(None) };
        if is_loopback(&target.host) {
            return Ok(None);
        }
        let scheme = if target.is_tls { "https" } else { "http" };
        let uri = format!("{scheme}://{}/", authority(target)).parse::<Uri>();
        let Some(found) = uri.ok().and_then(|uri| matcher.intercept(&uri)) else { return Ok(None) };
        let uri = found.uri();
        let host = uri.authority().map_or("", |authority| without_credentials(authority.as_str()).1);
        let shown = format!("{}://{host}", uri.scheme_str().unwrap_or("http"));
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => {
                return Err(Error::Proxy { proxy: shown, why: "http:// and https:// are spoken".to_owned() });
            }
        };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let authorization = found.basic_auth().cloned();
        Ok(Some(Proxy { target: Target { is_tls, host, port }, authorization, shown }))
    }
}

impl Proxy {
    /// Asks the proxy at the other end of `io` for a connection to `target`.
    pub(crate) async fn tunnel(&self, io: Box<dyn Io>, target: &Target) -> Result<TokioIo<Upgraded>, Error> {
        let refused = |why: String| Error::Proxy { proxy: self.shown.clone(), why };
        let broken = |error: hyper::Error| refused(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
        tokio::spawn(connection.with_upgrades());
        let to = authority(target);
        let mut request = Request::builder().method(Method::CONNECT).uri(&to).header(header::HOST, &to);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::PROXY_AUTHORIZATION, authorization);
        }
        let request =
            request.body(Empty::<bytes::Bytes>::new()).map_err(|error| refused(error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        if !answer.status().is_success() {
            return Err(refused(format!("status {}", answer.status())));
        }
        Ok(TokioIo::new(hyper::upgrade::on(answer).await.map_err(broken)?))
    }

    pub(crate) fn failed(&self, error: &Error) -> Error {
        Error::Proxy { proxy: self.shown.clone(), why: error.to_string() }
    }
}

fn authority(target: &Target) -> String {
    let Target { host, port, .. } = target;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(build: impl FnOnce(hyper_util::client::proxy::matcher::Builder) -> Matcher) -> Routes {
        Routes(Some(build(Matcher::builder())))
    }

    fn to(routes: &Routes, is_tls: bool, host: &str) -> Option<String> {
        let target = Target { is_tls, host: host.to_owned(), port: 8443 };
        routes.to(&target).unwrap().map(|proxy| proxy.shown)
    }

    #[test]
    fn the_scheme_chooses_the_proxy_and_loopback_and_exceptions_need_none() {
        let routes =
            routes(|b| b.http("http://one:1").https("https://u:p@two:2").no("b.example,10.0.0.0/8").build());
        assert_eq!(to(&routes, false, "a.example").as_deref(), Some("http://one:1"));
        assert_eq!(to(&routes, true, "a.example").as_deref(), Some("https://two:2"), "without its password");
        assert_eq!(to(&routes, true, "2001:db8::1").as_deref(), Some("https://two:2"));
        for direct in ["localhost", "127.0.0.1", "::1", "b.example", "c.b.example", "10.1.2.3"] {
            assert_eq!(to(&routes, true, direct), None, "{direct}");
        }
        assert_eq!(to(&Routes(None), true, "a.example"), None);
    }

    #[test]
    fn a_proxy_that_cannot_be_spoken_to_is_said() {
        let routes = routes(|b| b.all("socks5://one:1").build());
        let target = Target { is_tls: true, host: "a.example".into(), port: 443 };
        let said = routes.to(&target).unwrap_err().to_string();
        assert_eq!(said, "the proxy socks5://one:1 does not connect: http:// and https:// are spoken");
    }
}
