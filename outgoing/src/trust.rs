//! Whose word is taken for who a server is.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Whose word is taken for who a server is.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Trust {
    /// The system's authorities, as `SSL_CERT_FILE` and `SSL_CERT_DIR` say where they are set; read at the first
    /// connection over TLS. Mozilla's list, which is compiled in, where the system has none.
    #[default]
    System,
    /// These, and no others.
    Authorities(Authorities),
    /// Its own: whoever is in between can read and change everything.
    Anyone,
}

/// Certificates of authorities.
#[derive(Clone)]
pub struct Authorities(Arc<RootCertStore>);

/// Why a file names no authorities.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthoritiesError(String);

impl Authorities {
    /// Takes the certificates of a PEM text; what else stands in it is passed over, and so are certificates that cannot
    /// vouch for others as long as one can.
    ///
    /// # Errors
    /// It is no PEM, or has no certificate that can be used.
    pub fn from_pem(pem: &[u8]) -> Result<Self, AuthoritiesError> {
        let mut roots = RootCertStore::empty();
        let mut unusable = None;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| AuthoritiesError(error.to_string()))?;
            if let Err(error) = roots.add(certificate) {
                unusable.get_or_insert(error);
            }
        }
        match unusable {
            _ if !roots.is_empty() => Ok(Self(Arc::new(roots))),
            Some(error) => Err(AuthoritiesError(error.to_string())),
            None => {
                let why = "no certificate in PEM form (`-----BEGIN CERTIFICATE-----`)";
                Err(AuthoritiesError(why.to_owned()))
            }
        }
    }

    /// Reads a PEM file.
    ///
    /// # Errors
    /// As [`Authorities::from_pem`], or it cannot be read; the error begins with the file's name.
    pub fn read(file: &Path) -> Result<Self, AuthoritiesError> {
        let wrong = |why: &dyn fmt::Display| AuthoritiesError(format!("{}: {why}", file.display()));
        let pem = std::fs::read(file).map_err(|error| wrong(&error))?;
        Self::from_pem(&pem).map_err(|error| wrong(&error))
    }

    /// What the system trusts: its administrators know the authorities of their company. Images for containers often
    /// have none at all.
    fn of_the_system() -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Self(Arc::new(roots))
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authorities").field(&self.0.len()).finish()
    }
}

/// Who a client is: a certificate, those in between, and its key.
#[derive(Clone)]
pub struct Identity(Arc<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>);

impl Identity {
    /// Takes the certificates of one PEM text, the client's own first, and the key of another.
    ///
    /// # Errors
    /// One of them is no PEM, or has not what is looked for.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, AuthoritiesError> {
        let chain = CertificateDer::pem_slice_iter(certificates).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| AuthoritiesError(format!("the certificate: {error}")))?;
        if chain.is_empty() {
            let why = "no certificate in PEM form (`-----BEGIN CERTIFICATE-----`)";
            return Err(AuthoritiesError(why.to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(key);
        let key = key.map_err(|error| AuthoritiesError(format!("the key: {error}")))?;
        Ok(Self(Arc::new((chain, key))))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.0.0.len()).finish()
    }
}

impl Trust {
    /// What rustls needs, to offer these protocols. Reads files for [`Trust::System`].
    pub(crate) fn tls(
        &self,
        protocols: Vec<Vec<u8>>,
        identity: Option<&Identity>,
    ) -> Result<ClientConfig, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let config = match self {
            Trust::System => config.with_root_certificates(Authorities::of_the_system().0),
            Trust::Authorities(authorities) => config.with_root_certificates(Arc::clone(&authorities.0)),
            Trust::Anyone => {
                config.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked(provider)))
            }
        };
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some(Identity(inner)) => {
                let (chain, key) = &**inner;
                config.with_client_auth_cert(chain.clone(), key.clone_key())?
            }
        };
        config.alpn_protocols = protocols;
        Ok(config)
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
