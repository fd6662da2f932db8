//! A TLS proxy in front of a server, with a certificate authority of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::within;

/// An authority, and the file with its certificate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
    file: tempfile::NamedTempFile,
}

/// A certificate and its key.
pub struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signed");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), certificate.pem()).expect("written");
        Authority { issuer: Issuer::new(params, key), certificate, file }
    }

    pub fn file(&self) -> &str {
        self.file.path().to_str().expect("UTF-8")
    }

    /// A certificate for names or addresses.
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.issue_with(names, |_| {})
    }

    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("legal names");
        // With the name of its authority it would count as signed by itself.
        params.distinguished_name.push(DnType::CommonName, "a server of the tests");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        Identity { certificate: params.signed_by(&key, &self.issuer).expect("signed"), key }
    }

    /// The authority's own certificate, shown as a server's.
    pub fn identity(&self) -> Identity {
        let key = KeyPair::from_pem(&self.issuer.key().serialize_pem()).expect("its own key");
        Identity { certificate: self.certificate.clone(), key }
    }
}

impl Identity {
    /// As PEM files with this name in a folder: certificate, key.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        std::fs::write(&certificate, self.certificate.pem()).expect("written");
        std::fs::write(&key, self.key.serialize_pem()).expect("written");
        (certificate, key)
    }

    fn shown(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        (vec![self.certificate.der().clone()], key)
    }
}

/// What a client asks for.
pub struct Asking<'a> {
    pub name: &'a str,
    pub protocols: &'a [&'a str],
    pub version: &'static SupportedProtocolVersion,
    pub identity: Option<&'a Identity>,
}

impl Default for Asking<'_> {
    fn default() -> Self {
        Asking { name: "localhost", protocols: &[], version: &rustls::version::TLS13, identity: None }
    }
}

impl Authority {
    /// Connects, trusting nobody else. An error if the server is not who it is asked for, or closes.
    pub async fn connect(&self, to: SocketAddr, asking: Asking<'_>) -> std::io::Result<ClientStream> {
        self.connect_after(to, b"", asking).await
    }

    /// As [`Authority::connect`], after bytes that a proxy would send first.
    pub async fn connect_after(
        &self,
        to: SocketAddr,
        first: &[u8],
        asking: Asking<'_>,
    ) -> std::io::Result<ClientStream> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("an authority");
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[asking.version])
            .expect("a version")
            .with_root_certificates(roots);
        let mut config = match asking.identity.map(Identity::shown) {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("its key"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = asking.protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(asking.name.to_owned()).expect("a name");
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(first).await?;
        within(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }
}

/// A client's side.
pub type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Ends TLS and passes on what is inside.
pub struct TlsProxy {
    pub address: SocketAddr,
    cut: watch::Sender<()>,
    passed: Arc<AtomicUsize>,
}

impl TlsProxy {
    pub async fn start(identity: Identity, to: SocketAddr) -> Self {
        let Identity { certificate, key } = identity;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a certificate and its key");
        // As proxies do: the client has to ask for the one it speaks.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let cut = watch::Sender::new(());
        let passed = Arc::new(AtomicUsize::new(0));
        let (cuts, count) = (cut.clone(), Arc::clone(&passed));
        // It ends with the test's runtime.
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (acceptor, mut cut, count) = (acceptor.clone(), cuts.subscribe(), Arc::clone(&count));
                tokio::spawn(async move {
                    let Ok(mut client) = acceptor.accept(stream).await else { return };
                    let Ok(mut server) = TcpStream::connect(to).await else { return };
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        TlsProxy { address, cut, passed }
    }

    /// Ends all connections, in the middle of whatever they are at.
    pub fn cut(&self) {
        self.cut.send_replace(());
    }

    /// How many connections got through to the server.
    pub fn passed(&self) -> usize {
        self.passed.load(Ordering::Relaxed)
    }
}
