//! `[tls]`, and where TLS is spoken.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use settings::{Period, Setting};

use crate::listen::{CertificateFiles, ClientAuth, ClientIdentity, TlsConfig, TlsMode, TlsVersion};

/// `[tls]`: certificates, and who may come by them. Paths are taken from the folder of the configuration file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Tls {
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    certificates: Vec<Files>,
    client_ca_file: Option<PathBuf>,
    client_auth: Auth,
    client_identity: Identity,
    min_version: Version,
    handshake_timeout: Period,
    max_handshakes: usize,
}

impl Default for Tls {
    fn default() -> Self {
        let config = TlsConfig::default();
        Tls {
            cert_file: None,
            key_file: None,
            certificates: Vec::new(),
            client_ca_file: None,
            client_auth: Auth::Optional,
            client_identity: Identity::Cn,
            min_version: Version::Tls12,
            handshake_timeout: Period::from_value(config.handshake_timeout),
            max_handshakes: config.max_handshakes,
        }
    }
}

/// One `[[tls.certificates]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Files {
    cert_file: PathBuf,
    key_file: PathBuf,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Auth {
    Optional,
    Required,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Identity {
    Cn,
    Dns,
    Email,
    Uri,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
enum Version {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// `http.tls`, `mqtt.tls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum Mode {
    Off,
    Required,
    Optional,
}

impl Tls {
    /// Whether there is one to show.
    pub(in crate::config) fn has_certificates(&self) -> bool {
        self.cert_file.is_some() || !self.certificates.is_empty()
    }

    /// What it says, or the key that is missing and why.
    pub(in crate::config) fn config(
        &self,
        folder: &Path,
        reload_interval: Duration,
    ) -> Result<Option<TlsConfig>, (&'static str, &'static str)> {
        let path = |file: &PathBuf| folder.join(file);
        let first = match (&self.cert_file, &self.key_file) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return Err(("tls.key_file", "the key of `tls.cert_file` is missing")),
            (None, Some(_)) => return Err(("tls.cert_file", "the certificate of `tls.key_file` is missing")),
        };
        let all =
            first.into_iter().chain(self.certificates.iter().map(|one| (&one.cert_file, &one.key_file)));
        let files = |(cert, key)| CertificateFiles { cert_file: path(cert), key_file: path(key) };
        let certificates: Vec<_> = all.map(files).collect();
        if certificates.is_empty() {
            return match self.client_ca_file {
                Some(_) => Err(("tls.cert_file", "a certificate of the server is needed, too")),
                None => Ok(None),
            };
        }
        if matches!(self.client_auth, Auth::Required) && self.client_ca_file.is_none() {
            return Err(("tls.client_ca_file", "whose certificates clients must show is missing"));
        }
        Ok(Some(TlsConfig {
            certificates,
            client_ca_file: self.client_ca_file.as_ref().map(path),
            client_auth: match self.client_auth {
                Auth::Optional => ClientAuth::Optional,
                Auth::Required => ClientAuth::Required,
            },
            client_identity: match self.client_identity {
                Identity::Cn => ClientIdentity::CommonName,
                Identity::Dns => ClientIdentity::Dns,
                Identity::Email => ClientIdentity::Email,
                Identity::Uri => ClientIdentity::Uri,
            },
            min_version: match self.min_version {
                Version::Tls12 => TlsVersion::Tls12,
                Version::Tls13 => TlsVersion::Tls13,
            },
            handshake_timeout: self.handshake_timeout.into_value(),
            max_handshakes: self.max_handshakes,
            reload_interval,
        }))
    }
}

/// Whether TLS is spoken at a listener's own address: where there are certificates, nothing else is, unless it is
/// said or TLS has an address of its own.
pub(in crate::config) fn mode(said: Option<Mode>, has_certificates: bool, has_address: bool) -> TlsMode {
    match said {
        Some(Mode::Off) => TlsMode::Off,
        Some(Mode::Required) => TlsMode::Required,
        Some(Mode::Optional) => TlsMode::Optional,
        None if has_certificates && !has_address => TlsMode::Required,
        None => TlsMode::Off,
    }
}
