//! Whom the client trusts, and what is spoken inside.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outgoing::{Authorities, Client, Config, Error, TlsProblem, Trust, Versions};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::server::get;

/// An authority's certificate, and a server with one that it signed.
struct Shown {
    authority: String,
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

async fn show(name: &str) -> Shown {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                count.fetch_add(1, Ordering::SeqCst);
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let answer = service_fn(async |request: Request<Incoming>| {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let said = format!("{:?} {}", request.version(), request.uri());
                    let mut answer = Response::new(Full::new(Bytes::from(said)));
                    // As an origin answers that holds a client on 200 channels.
                    for channel in 0..200 {
                        let channel = format!("tenant-with-a-long-name/orders/{channel}/changes");
                        answer.headers_mut().append("grip-channel", channel.parse().unwrap());
                    }
                    Ok::<_, Infallible>(answer)
                });
                let io = TokioIo::new(stream);
                let _ = if is_http2 {
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, answer)
                        .await
                } else {
                    hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await
                };
            });
        }
    });
    Shown { authority, address, connections }
}

impl Shown {
    fn trusted(&self) -> Config {
        let authorities = Authorities::from_pem(self.authority.as_bytes()).unwrap();
        let mut config = Config::default();
        config.trust = Trust::Authorities(authorities);
        config
    }

    async fn fetch(&self, client: &Client) -> Result<String, Error> {
        let url = format!("https://localhost:{}/x", self.address.port());
        let answer = client.fetch(get(&url), 1000, Duration::from_secs(5)).await?;
        Ok(String::from_utf8(answer.into_body().to_vec()).unwrap())
    }
}

#[tokio::test]
async fn http2_is_spoken_where_both_can_and_one_connection_serves_all() {
    let shown = show("localhost").await;
    let mut config = shown.trusted();
    config.versions = Versions::Http1And2;
    let client = Client::new(config);
    let absolute = format!("{:?} https://localhost:{}/x", Version::HTTP_2, shown.address.port());
    assert_eq!(shown.fetch(&client).await.unwrap(), absolute);
    let (a, b, c) = tokio::join!(shown.fetch(&client), shown.fetch(&client), shown.fetch(&client));
    assert!([a, b, c].into_iter().all(|said| said.unwrap() == absolute));
    assert_eq!(shown.connections.load(Ordering::SeqCst), 1);
    let client = Client::new(shown.trusted());
    assert_eq!(shown.fetch(&client).await.unwrap(), "HTTP/1.1 /x");
}

#[tokio::test]
async fn nobody_but_the_trusted_vouch_for_a_server() {
    let (shown, other, named) = (show("localhost").await, show("localhost").await, show("a.example").await);
    for (config, server, problem, why) in [
        (other.trusted(), &shown, TlsProblem::UnknownAuthority, "nobody who is trusted here"),
        (Config::default(), &shown, TlsProblem::UnknownAuthority, "nobody who is trusted here"),
        (
            named.trusted(),
            &named,
            TlsProblem::Certificate,
            "its certificate is for a.example, not for localhost",
        ),
    ] {
        match server.fetch(&Client::new(config)).await {
            Err(Error::Tls { problem: found, why: said }) => {
                assert_eq!(found, problem);
                assert!(said.starts_with(why), "{said}");
            }
            other => panic!("{why}: {other:?}"),
        }
    }
    let mut given = Config::default();
    given.trust = Trust::Anyone;
    let anyone = Client::new(given);
    assert!(shown.fetch(&anyone).await.is_ok());
    assert_eq!((other.connections.load(Ordering::SeqCst), named.connections.load(Ordering::SeqCst)), (0, 0));
}

#[tokio::test]
async fn tls_and_plain_http_that_meet_are_told_apart() {
    let shown = show("localhost").await;
    // Answers whatever comes as a server for plain HTTP does.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
        }
    });
    let client = Client::new(shown.trusted());
    let failure = client.send(get(&format!("https://{plain}/"))).await.unwrap_err();
    assert!(matches!(failure, Error::Tls { problem: TlsProblem::Plain, .. }), "{failure:?}");
    let url = format!("http://{}/", shown.address);
    assert!(client.send(get(&url)).await.is_err());
    assert!(client.speaks_tls(&url.parse().unwrap()).await);
    assert!(!client.speaks_tls(&format!("http://{plain}/").parse().unwrap()).await);
}

#[test]
fn a_text_without_a_usable_certificate_names_no_authority() {
    let said = Authorities::from_pem(b"nothing\n").unwrap_err().to_string();
    assert!(said.starts_with("no certificate in PEM form"), "{said}");
    let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(Authorities::from_pem(broken).is_err());
    let missing = Authorities::read("/no/such.pem".as_ref()).unwrap_err().to_string();
    assert!(missing.starts_with("/no/such.pem: No such file"), "{missing}");
}
