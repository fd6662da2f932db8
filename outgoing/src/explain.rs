//! A failed TLS handshake, for whoever has to change something.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{CertificateError, Error as TlsError, OtherError};

use crate::error::{Error, TlsProblem};

/// What a failed handshake with `host` means.
pub(crate) fn explain(error: &io::Error, host: &str) -> Error {
    use TlsProblem::{Certificate, Handshake, Plain, UnknownAuthority};
    let plain = "plain HTTP is http://";
    let (problem, why) = match reason(error) {
        Some(TlsError::InvalidCertificate(error)) => {
            // The second: an authority of that name is known, and has another key.
            let unknown = matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature);
            (if unknown { UnknownAuthority } else { Certificate }, of_certificate(error, host))
        }
        Some(TlsError::InvalidMessage(_)) => (Plain, format!("no TLS is spoken there; {plain}")),
        Some(error) => (Handshake, error.to_string()),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            (Plain, format!("it closes the connection instead of a TLS handshake; {plain}"))
        }
        None => return Error::Broken(error.to_string()),
    };
    Error::Tls { problem, why }
}

/// Whether a failed handshake was one at all: somebody there speaks TLS.
pub(crate) fn is_tls(error: &io::Error) -> bool {
    !matches!(reason(error), None | Some(TlsError::InvalidMessage(_)))
}

fn reason(error: &io::Error) -> Option<&TlsError> {
    error.get_ref()?.downcast_ref()
}

fn of_certificate(error: &CertificateError, host: &str) -> String {
    let date = |time: &UnixTime| {
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.as_secs())).to_string()
    };
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "nobody who is trusted here vouches for its certificate".into()
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
