//! TLS toward the server: whose word is taken for who it is, and failures in terms that can be acted on.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::failure::Failure;

/// Whose word is taken for who the server is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trust<'a> {
    /// The system's authorities.
    System,
    /// The authorities in a PEM file.
    File(&'a Path),
    /// Its own.
    Anyone,
}

/// How one server is spoken to over TLS.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// For the server of this name or address.
    pub(crate) fn new(host: &str, trust: Trust<'_>) -> Result<Self, Failure> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Failure::Arguments(format!("`{host}` is no name that a certificate can be for")))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::Arguments(error.to_string()))?;
        let config = match trust {
            Trust::System => config.with_root_certificates(authorities_of_the_system()),
            Trust::File(file) => config.with_root_certificates(authorities_in(file)?),
            Trust::Anyone => {
                config.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked(provider)))
            }
        };
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
    }

    pub(crate) async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What the system trusts: its administrators know the authorities of their company. Images for containers often
/// have none at all, and then it is the list of Mozilla's that is compiled in.
fn authorities_of_the_system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn authorities_in(file: &Path) -> Result<RootCertStore, Failure> {
    let wrong = |why: &dyn fmt::Display| Failure::Arguments(format!("{}: {why}", file.display()));
    let pem = std::fs::read(file).map_err(|error| wrong(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"no certificate in PEM form (`-----BEGIN CERTIFICATE-----`)"));
    }
    Ok(roots)
}

/// Whether a failed handshake was one at all: somebody there speaks TLS.
pub(crate) fn is_tls(handshake: &io::Result<TlsStream<TcpStream>>) -> bool {
    match handshake {
        Ok(_) => true,
        Err(error) => !matches!(reason(error), None | Some(Error::InvalidMessage(_))),
    }
}

fn reason(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Why no connection came about, for whoever has to change something.
pub(crate) fn explain(error: &io::Error, host: &str) -> String {
    match reason(error) {
        Some(Error::InvalidCertificate(error)) => explain_certificate(error, host),
        Some(Error::InvalidMessage(_)) => "no TLS is spoken there; plain HTTP is http://".to_owned(),
        Some(error) => error.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it closes the connection instead of a TLS handshake; plain HTTP is http://".to_owned()
        }
        None => error.to_string(),
    }
}

fn explain_certificate(error: &CertificateError, host: &str) -> String {
    let date = |time: &UnixTime| {
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.as_secs())).to_string()
    };
    match error {
        // The second: an authority of that name is known, and has another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "nobody who is trusted here vouches for its certificate; --ca-file FILE names a private authority"
                .into()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            // As the verifier has them: `DnsName("a.example")`.
            let names: Vec<_> =
                presented.iter().map(|name| name.split('"').nth(1).unwrap_or(name).to_owned()).collect();
            format!("its certificate is for {}, not for {host}", names.join(", "))
        }
        CertificateError::NotValidForName => format!("its certificate is not for {host}"),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate expired at {}", date(not_after))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("its certificate begins at {}, and here it is {}", date(not_before), date(time))
        }
        // What `openssl req -x509` makes by default.
        CertificateError::Other(OtherError(error)) if error.to_string() == "CaUsedAsEndEntity" => {
            "it shows the certificate of an authority (CA:TRUE), not one of a server".into()
        }
        other => format!("its certificate is not accepted: {other}"),
    }
}

/// Takes every certificate. That its key is the server's is still checked, as the protocol needs it.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
