//! TLS on the listeners: which certificate is shown, to whom, and who shows one of their own.

mod acceptor;
mod certificate;
mod config;
mod names;

pub use self::acceptor::Tls;
pub(crate) use self::acceptor::{Inside, MQTT};
pub use self::certificate::TlsError;
pub use self::config::{CertificateFiles, ClientAuth, ClientIdentity, TlsConfig, TlsVersion};
