//! TLS around what one connection says and hears.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue, WebPkiServerVerifier,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup, RootCertStore,
    SignatureScheme,
};

/// What servers are asked for, and must be named where they are verified.
const SERVER: &str = "localhost";

/// What the connections of a process have in common.
#[derive(Debug)]
pub(crate) struct ClientTls {
    config: Arc<ClientConfig>,
}

impl ClientTls {
    /// Believes the authorities in the PEM file `ca`, or without one everybody: a client that verifies a server on
    /// loopback measures its own arithmetic. `tickets` are collected and used; without any, nothing is resumed.
    ///
    /// # Errors
    /// The file cannot be read or has no certificate.
    pub(crate) fn new(ca: Option<&Path>, tickets: Option<Arc<Tickets>>) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match ca {
            None => Arc::new(Everybody(Arc::clone(&provider))),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(file).map_err(io::Error::other)? {
                    roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
                }
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .map_err(io::Error::other)?
            }
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = match tickets {
            Some(tickets) => Resumption::store(tickets),
            None => Resumption::disabled(),
        };
        Ok(Self { config: Arc::new(config) })
    }

    #[cfg(test)]
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

/// Tickets of TLS 1.3 sessions, each for one connection that comes back.
#[derive(Debug)]
pub(crate) struct Tickets {
    held: Mutex<Held>,
    most: usize,
}

#[derive(Debug, Default)]
struct Held {
    tickets: VecDeque<Tls13ClientSessionValue>,
    group: Option<NamedGroup>,
    given: bool,
}

impl Tickets {
    /// Collects up to `most`, and gives none before [`Tickets::give`].
    pub(crate) fn collecting(most: usize) -> Self {
        Self { held: Mutex::default(), most }
    }

    /// From now on connections resume what was collected; no more are.
    pub(crate) fn give(&self) {
        self.with(|held| held.given = true);
    }

    fn with<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        change(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.with(|held| held.group = Some(group));
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.with(|held| held.group)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.with(|held| {
            if !held.given && held.tickets.len() < self.most {
                held.tickets.push_back(ticket);
            }
        });
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.with(|held| if held.given { held.tickets.pop_front() } else { None })
    }
}

/// Verifies nothing.
#[derive(Debug)]
struct Everybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Everybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// One connection's.
pub(super) struct Tls {
    shared: Arc<ClientTls>,
    session: ClientConnection,
}

impl Tls {
    /// With its first word ready to be sent.
    pub(super) fn new(shared: Arc<ClientTls>) -> io::Result<Self> {
        let name = ServerName::try_from(SERVER).map_err(io::Error::other)?;
        let mut session =
            ClientConnection::new(Arc::clone(&shared.config), name).map_err(io::Error::other)?;
        // The sessions above bound what waits.
        session.set_buffer_limit(None);
        Ok(Self { shared, session })
    }

    /// Another one to the same server.
    pub(super) fn again(&self) -> io::Result<Self> {
        Self::new(Arc::clone(&self.shared))
    }

    pub(super) fn is_shaking_hands(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Whether it goes on from an earlier session.
    pub(super) fn is_resumed(&self) -> bool {
        self.session.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Takes what came from the socket and hands what is inside to `take`, by way of `plain`.
    pub(super) fn receive(
        &mut self,
        mut raw: &[u8],
        plain: &mut [u8],
        mut take: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        while !raw.is_empty() {
            self.session.read_tls(&mut raw).map_err(|error| format!("TLS: {error}"))?;
            self.session.process_new_packets().map_err(|error| format!("TLS: {error}"))?;
            loop {
                match self.session.reader().read(plain) {
                    Ok(0) => return Err("closed by the server, as TLS says".to_owned()),
                    Ok(bytes) => take(plain.get(..bytes).unwrap_or_default())?,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(format!("TLS: {error}")),
                }
            }
        }
        Ok(())
    }

    /// Encrypts `plain`, to be sent with the next [`Tls::flush`].
    pub(super) fn write(&mut self, plain: &[u8]) -> io::Result<()> {
        self.session.writer().write_all(plain)
    }

    /// Sends what the socket takes; whether that was all.
    pub(super) fn flush(&mut self, socket: impl AsFd) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Socket(socket.as_fd())) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

struct Socket<S>(S);

impl<S: AsFd> io::Write for Socket<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.0, bytes) {
                Err(Errno::INTR) => {}
                outcome => return Ok(outcome?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
