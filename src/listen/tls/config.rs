//! What can be said of TLS.

use std::path::PathBuf;
use std::time::Duration;

/// Certificates, and who may come by them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsConfig {
    /// Certificates and their keys. The one whose names have the name that a client asks for is shown, the first one to
    /// clients that ask for none or for another. Default none; there must be one.
    pub certificates: Vec<CertificateFiles>,
    /// PEM file of the authorities whose certificates clients may show. Default none: clients are not asked for one.
    pub client_ca_file: Option<PathBuf>,
    /// Whether a client without a certificate is let in. Default `Optional`.
    pub client_auth: ClientAuth,
    /// What of a client's certificate is its name. Default the common name.
    pub client_identity: ClientIdentity,
    /// The oldest version that is spoken. Default TLS 1.2.
    pub min_version: TlsVersion,
    /// How long a handshake may take. Default 10 s.
    pub handshake_timeout: Duration,
    /// Handshakes at a time; a client beyond them is closed and counted. Default 1,024.
    pub max_handshakes: usize,
    /// How often the files are looked at for changes; zero: never. Default 2 s.
    pub reload_interval: Duration,
}

impl Default for TlsConfig {
    fn default() -> Self {
        TlsConfig {
            certificates: Vec::new(),
            client_ca_file: None,
            client_auth: ClientAuth::Optional,
            client_identity: ClientIdentity::CommonName,
            min_version: TlsVersion::Tls12,
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 1024,
            reload_interval: Duration::from_secs(2),
        }
    }
}

/// A certificate as it lies on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateFiles {
    /// PEM: the certificate, then those of the authorities between it and the one that clients trust.
    pub cert_file: PathBuf,
    /// PEM: its private key, not encrypted.
    pub key_file: PathBuf,
}

impl CertificateFiles {
    /// A certificate and its key.
    pub fn new(cert_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        Self { cert_file: cert_file.into(), key_file: key_file.into() }
    }
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientAuth {
    /// They may: one that does not may show other credentials.
    Optional,
    /// They must: the handshake fails without one.
    Required,
}

/// Which of a certificate's names is its holder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientIdentity {
    /// The last common name (CN) of its subject.
    CommonName,
    /// Its first DNS name (SAN).
    Dns,
    /// Its first address of e-mail (SAN).
    Email,
    /// Its first URI (SAN).
    Uri,
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2, with forward secrecy only.
    Tls12,
    /// TLS 1.3.
    Tls13,
}
