//! Certificates from the disk: read, and looked at as a client will.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{CertificateFiles, ClientIdentity};

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// There is no certificate to show.
    #[error("no certificate is configured: `tls.cert_file` and `tls.key_file` name one")]
    NoCertificate,
    /// A file cannot be read, or is not what it should be.
    #[error("TLS: {}: {what}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The library refuses.
    #[error("TLS: {0}")]
    Library(#[from] rustls::Error),
}

impl TlsError {
    pub(super) fn file(file: &Path, what: impl ToString) -> Self {
        TlsError::File { file: file.to_owned(), what: what.to_string() }
    }
}

/// One certificate with its key, fit to be shown.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    /// DNS names in lower case, perhaps beginning with `*.`.
    pub(super) names: Vec<String>,
    pub(super) file: PathBuf,
    /// The first end of it and of those above it.
    pub(super) ends: SystemTime,
    /// The last beginning.
    begins: SystemTime,
}

impl Certificate {
    /// Reads it, and makes sure that its key is its own and each one in the file is signed by the next.
    pub(super) fn read(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let CertificateFiles { cert_file, key_file } = files;
        let wrong = |what: &dyn std::fmt::Display| TlsError::file(cert_file, what);
        let chain = certificates(cert_file)?;
        let key = PrivateKeyDer::from_pem_file(key_file)
            .map_err(|error| TlsError::file(key_file, format_args!("no private key in PEM: {error}")))?;
        let key =
            provider.key_provider.load_private_key(key).map_err(|error| TlsError::file(key_file, error))?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(_) => {
                return Err(TlsError::file(
                    key_file,
                    format_args!("is not the key of {}", cert_file.display()),
                ));
            }
        }
        let (mut begins, mut ends) = (SystemTime::UNIX_EPOCH, None::<SystemTime>);
        for certificate in &key.cert {
            let parsed = parse(certificate).map_err(|what| wrong(&what))?;
            begins = begins.max(at(parsed.validity().not_before.timestamp()));
            let end = at(parsed.validity().not_after.timestamp());
            ends = Some(ends.map_or(end, |ends| ends.min(end)));
        }
        let leaf = key.cert.first().ok_or_else(|| wrong(&NONE))?;
        let names = names(&parse(leaf).map_err(|what| wrong(&what))?);
        check_chain(&key.cert, begins, provider).map_err(|what| wrong(&what))?;
        let ends = ends.unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Certificate { key: Arc::new(key), names, file: cert_file.clone(), ends, begins })
    }

    /// How long it is good for; an error if it is not good now.
    pub(super) fn check_time(&self, now: SystemTime) -> Result<Duration, TlsError> {
        if now < self.begins {
            return Err(TlsError::file(&self.file, format_args!("begins at {} only", told(self.begins))));
        }
        self.ends
            .duration_since(now)
            .map_err(|_| TlsError::file(&self.file, format_args!("expired at {}", told(self.ends))))
    }
}

const NONE: &str = "no certificate in PEM is in it";

fn at(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// A point in time as it is told.
fn told(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = x509_parser::time::ASN1Time::from_timestamp(i64::try_from(seconds).unwrap_or(i64::MAX));
    time.map_or_else(|_| format!("{seconds} s"), |time| time.to_string())
}

/// All certificates of a file; at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(list) if list.is_empty() => Err(TlsError::file(file, NONE)),
        Ok(list) => Ok(list),
        Err(rustls::pki_types::pem::Error::Io(error)) => Err(TlsError::file(file, error)),
        Err(error) => Err(TlsError::file(file, format_args!("{NONE}: {error}"))),
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    X509Certificate::from_der(certificate).map(|(_, parsed)| parsed).map_err(|error| error.to_string())
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(dns).collect()
}

/// Whether each certificate is signed by the one behind it. The last one's authority is known to clients, or to nobody.
fn check_chain(
    chain: &[CertificateDer<'static>],
    begins: SystemTime,
    provider: &CryptoProvider,
) -> Result<(), String> {
    let [leaf, between @ .., last] = chain else { return Ok(()) };
    let mut anchors = RootCertStore::empty();
    anchors.add(last.clone()).map_err(|error| error.to_string())?;
    let leaf = ParsedCertificate::try_from(leaf).map_err(|error| error.to_string())?;
    // When all had begun: whether one is over is another question.
    let when = UnixTime::since_unix_epoch(begins.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&leaf, &anchors, between, when, algorithms).map_err(|error| {
        format!("its certificates do not follow from one another, each signed by the next: {error}")
    })
}

/// Who a client is by its certificate.
pub(super) fn identity(certificate: &CertificateDer<'_>, which: ClientIdentity) -> Option<String> {
    let parsed = parse(certificate).ok()?;
    let alternative = |pick: &dyn Fn(&GeneralName<'_>) -> Option<String>| {
        let names = parsed.subject_alternative_name().ok()??;
        names.value.general_names.iter().find_map(pick)
    };
    let name = match which {
        ClientIdentity::CommonName => {
            parsed.subject().iter_common_name().last()?.as_str().ok().map(str::to_owned)
        }
        ClientIdentity::Dns => alternative(&|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        }),
        ClientIdentity::Email => alternative(&|name| match name {
            GeneralName::RFC822Name(name) => Some((*name).to_owned()),
            _ => None,
        }),
        ClientIdentity::Uri => alternative(&|name| match name {
            GeneralName::URI(name) => Some((*name).to_owned()),
            _ => None,
        }),
    };
    name.filter(|name| !name.is_empty())
}
