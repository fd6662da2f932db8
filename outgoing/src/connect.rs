//! From a target to a connection that takes requests.

use std::sync::Arc;
use std::time::Duration;

use http::Version;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{Config, Versions};
use crate::connection::{Connection, Io};
use crate::dial::dial;
use crate::error::{Error, Phase, TlsProblem};
use crate::explain::{explain, is_tls};
use crate::proxy::{Proxy, Routes};
use crate::target::Target;
use crate::trust::Trust;

/// How long a server may take to show that it speaks TLS.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// Makes connections.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) config: Config,
    routes: Routes,
    /// Made at the first handshake: the system's authorities are files.
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Connector {
    pub(crate) fn new(config: Config) -> Self {
        Self { routes: Routes::new(&config), config, tls: OnceCell::new() }
    }

    /// A connection to `target`, every phase within its time.
    pub(crate) async fn connect(&self, target: &Target) -> Result<Connection, Error> {
        let io: Box<dyn Io> = match self.routes.to(target)? {
            None => Box::new(dial(&self.config, &target.host, target.port).await?),
            Some(proxy) => self.through(&proxy, target).await?,
        };
        if !target.is_tls {
            return Connection::open(io, Version::HTTP_11).await;
        }
        let stream = self.handshake(&target.host, io).await?;
        let version = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Version::HTTP_2,
            _ => Version::HTTP_11,
        };
        Connection::open(Box::new(stream), version).await
    }

    /// Bytes to and from `target` that are no HTTP yet: over TLS, HTTP/1.1 is what is agreed on.
    pub(crate) async fn open(&self, target: &Target) -> Result<Box<dyn Io>, Error> {
        let io: Box<dyn Io> = match self.routes.to(target)? {
            None => Box::new(dial(&self.config, &target.host, target.port).await?),
            Some(proxy) => self.through(&proxy, target).await?,
        };
        if !target.is_tls {
            return Ok(io);
        }
        let mut tls = ClientConfig::clone(&*self.tls().await?);
        tls.alpn_protocols = Versions::Http1.protocols();
        Ok(Box::new(self.handshake_by(Arc::new(tls), &target.host, io).await?))
    }

    async fn through(&self, proxy: &Proxy, target: &Target) -> Result<Box<dyn Io>, Error> {
        let failed = |error| proxy.failed(&error);
        let Target { is_tls, host, port } = &proxy.target;
        let mut io: Box<dyn Io> = Box::new(dial(&self.config, host, *port).await.map_err(failed)?);
        if *is_tls {
            let mut tls = ClientConfig::clone(&*self.tls().await?);
            tls.alpn_protocols = Versions::Http1.protocols();
            io = Box::new(self.handshake_by(Arc::new(tls), host, io).await.map_err(failed)?);
        }
        let limit = self.config.connect_timeout;
        let tunnel = timeout(limit, proxy.tunnel(io, target)).await;
        let tunnel = tunnel.map_err(|_| failed(Error::timeout(Phase::Connect, limit)))??;
        Ok(Box::new(tunnel))
    }

    async fn handshake(&self, host: &str, io: Box<dyn Io>) -> Result<TlsStream<Box<dyn Io>>, Error> {
        self.handshake_by(self.tls().await?, host, io).await
    }

    async fn handshake_by(
        &self,
        tls: Arc<ClientConfig>,
        host: &str,
        io: Box<dyn Io>,
    ) -> Result<TlsStream<Box<dyn Io>>, Error> {
        let limit = self.config.tls_timeout;
        let shaken = timeout(limit, TlsConnector::from(tls).connect(server_name(host)?, io)).await;
        shaken.map_err(|_| Error::timeout(Phase::Tls, limit))?.map_err(|error| explain(&error, host))
    }

    async fn tls(&self) -> Result<Arc<ClientConfig>, Error> {
        let made = self.tls.get_or_try_init(|| async {
            let (trust, protocols) = (self.config.trust.clone(), self.config.versions.protocols());
            let identity = self.config.identity.clone();
            let made = tokio::task::spawn_blocking(move || trust.tls(protocols, identity.as_ref())).await;
            let made = made.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            Ok::<_, String>(Arc::new(made))
        });
        made.await.cloned().map_err(|why| Error::Tls { problem: TlsProblem::Handshake, why })
    }

    /// Whether TLS is spoken at `target`, by whomever: what an answer that is no HTTP often comes from.
    pub(crate) async fn is_tls(&self, target: &Target) -> bool {
        let try_it = async {
            let (Ok(tls), Ok(name)) =
                (Trust::Anyone.tls(self.config.versions.protocols(), None), server_name(&target.host))
            else {
                return false;
            };
            let Ok(stream) = dial(&self.config, &target.host, target.port).await else { return false };
            match TlsConnector::from(Arc::new(tls)).connect(name, stream).await {
                Ok(_) => true,
                Err(error) => is_tls(&error),
            }
        };
        timeout(PROBE_LIMIT, try_it).await.unwrap_or(false)
    }
}

pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, Error> {
    let why = "its host is no name that a certificate can be for";
    ServerName::try_from(host.to_owned()).map_err(|_| Error::Address { url: host.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;
    use http_body_util::BodyExt;
    use hyper_util::client::proxy::matcher::Matcher;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    /// What a proxy with this answer was told, and what came of it.
    async fn by_a_proxy(answer: &'static str) -> (Vec<String>, Result<Bytes, Error>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://ann:secret@{}", listener.local_addr().unwrap());
        let proxy = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heads = vec![head(&mut stream).await];
            stream.write_all(answer.as_bytes()).await.unwrap();
            if answer.contains(" 200 ") {
                heads.push(head(&mut stream).await);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            }
            heads
        });
        let routes = Routes(Some(Matcher::builder().all(url).build()));
        let connector = Connector { config: Config::default(), routes, tls: OnceCell::new() };
        let (target, ready) =
            Target::of(Request::get("http://a.example:81/x").body(Bytes::new()).unwrap()).unwrap();
        let got = async {
            let mut connection = connector.connect(&target).await?;
            match connection.send(ready).await {
                Ok(answer) => Ok(answer.into_body().collect().await.unwrap().to_bytes()),
                Err(_) => panic!("a tunnel that takes no request"),
            }
        };
        let got = got.await;
        (proxy.await.unwrap(), got)
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_the_host_and_gets_its_credentials_and_the_host_does_not() {
        let (heads, got) = by_a_proxy("HTTP/1.1 200 Connection established\r\n\r\n").await;
        assert_eq!(got.unwrap(), "ok");
        assert!(heads[0].starts_with("CONNECT a.example:81 HTTP/1.1\r\n"), "{heads:?}");
        assert!(heads[0].contains("proxy-authorization: Basic YW5uOnNlY3JldA==\r\n"), "{heads:?}");
        assert!(heads[1].starts_with("GET /x HTTP/1.1\r\n"), "{heads:?}");
        assert!(!heads[1].contains("proxy-authorization"), "{heads:?}");
    }

    #[tokio::test]
    async fn what_a_proxy_refuses_with_is_said_without_its_password() {
        let (_, got) =
            by_a_proxy("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n").await;
        let said = got.unwrap_err().to_string();
        assert!(said.starts_with("the proxy http://127.0.0.1:"), "{said}");
        assert!(said.ends_with(" does not connect: status 407 Proxy Authentication Required"), "{said}");
    }
}
