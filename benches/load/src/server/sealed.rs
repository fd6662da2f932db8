//! The bare server's TLS: rustls shakes hands, then there is one key and one number for each subscriber.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, ConnectionTrafficSecrets, ServerConfig, ServerConnection};

/// The type of a record with what an application says (RFC 8446 §5.1), and of every record that is encrypted.
const APPLICATION_DATA: u8 = 23;
/// The first byte of a handshake.
pub(super) const HANDSHAKE: u8 = 22;
const TAG_BYTES: usize = 16;

/// What clients are greeted with: TLS 1.3 with AES-GCM, no tickets.
///
/// # Errors
/// A file cannot be read, or the key is not the certificate's.
pub(super) fn config(certificate: &Path, key: &Path) -> io::Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(io::Error::other)?;
    let mut provider: CryptoProvider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| {
        matches!(suite.suite(), CipherSuite::TLS13_AES_256_GCM_SHA384 | CipherSuite::TLS13_AES_128_GCM_SHA256)
    });
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(io::Error::other)?;
    config.enable_secret_extraction = true;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A connection that has not said yet what it wants.
pub(super) struct Shaking(Box<ServerConnection>);

impl Shaking {
    pub(super) fn new(config: &Arc<ServerConfig>) -> io::Result<Self> {
        Ok(Self(Box::new(ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?)))
    }

    /// Takes what came, answers on `socket`, and puts what is inside behind `plain`.
    pub(super) fn receive(
        &mut self,
        mut raw: &[u8],
        socket: impl AsFd,
        plain: &mut Vec<u8>,
    ) -> io::Result<()> {
        while !raw.is_empty() {
            self.0.read_tls(&mut raw)?;
            self.0.process_new_packets().map_err(io::Error::other)?;
            match self.0.reader().read_to_end(plain) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // It has said that nothing more comes.
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => return Err(error),
            }
        }
        self.flush(socket)
    }

    /// Sends an answer, after which only records are sent.
    pub(super) fn answer(mut self, answer: &[u8], socket: impl AsFd) -> io::Result<Sealer> {
        self.0.writer().write_all(answer)?;
        self.flush(socket)?;
        let secrets = self.0.dangerous_extract_secrets().map_err(io::Error::other)?;
        Sealer::new(secrets.tx.0, secrets.tx.1)
    }

    /// Without queues a full socket means the client is too slow for this server.
    fn flush(&mut self, socket: impl AsFd) -> io::Result<()> {
        let mut records = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut records)?;
        }
        let written = if records.is_empty() { 0 } else { rustix::io::write(socket, &records)? };
        if written == records.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

/// All that writing to one subscriber takes.
pub(super) struct Sealer {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    /// Of the next record.
    number: u64,
}

impl Sealer {
    fn new(number: u64, secrets: ConnectionTrafficSecrets) -> io::Result<Self> {
        let (algorithm, key, iv): (&'static Algorithm, _, _) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(io::Error::other)?;
        let iv = iv.as_ref().try_into().map_err(io::Error::other)?;
        Ok(Self { key: LessSafeKey::new(key), iv, number })
    }

    /// Makes one record of `plain` (RFC 8446 §5.2 and §5.3), replacing what is in `record`.
    pub(super) fn seal(&mut self, plain: &[u8], record: &mut Vec<u8>) -> io::Result<()> {
        let [high, low] = u16::try_from(plain.len() + 1 + TAG_BYTES).map_err(io::Error::other)?.to_be_bytes();
        let head = [APPLICATION_DATA, 3, 3, high, low];
        record.clear();
        record.extend_from_slice(&head);
        record.extend_from_slice(plain);
        record.push(APPLICATION_DATA);
        let mut nonce = self.iv;
        for (byte, number) in nonce.iter_mut().rev().zip(self.number.to_le_bytes()) {
            *byte ^= number;
        }
        self.number += 1;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let inside = &mut record[head.len()..];
        let tag =
            self.key.seal_in_place_separate_tag(nonce, Aad::from(head), inside).map_err(io::Error::other)?;
        record.extend_from_slice(tag.as_ref());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use rustls::client::ClientConnection;

    use super::super::certificate::Certificate;
    use super::*;
    use crate::engine::ClientTls;

    #[test]
    fn a_client_of_rustls_reads_every_sealed_record_and_no_altered_one() {
        let certificate = Certificate::make().expect("a certificate");
        let config = config(&certificate.file(), &certificate.key_file()).expect("a configuration");
        let tls = ClientTls::new(Some(&certificate.file()), None).expect("an authority");
        let name = "localhost".try_into().expect("a name");
        let mut client = ClientConnection::new(tls.config(), name).expect("a client");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut shaking = Shaking::new(&config).expect("a server");
        client.writer().write_all(b"GET").expect("written");
        let mut asked = Vec::new();
        while asked != b"GET" {
            let mut records = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut records).expect("written");
            }
            shaking.receive(&records, &ours, &mut asked).expect("a handshake");
            if client.is_handshaking() {
                client.read_tls(&mut &theirs).expect("read");
                client.process_new_packets().expect("verified");
            }
        }
        let mut sealer = shaking.answer(b"200", &ours).expect("sealed");
        client.read_tls(&mut &theirs).expect("read");
        let mut record = Vec::new();
        let mut expected = b"200".to_vec();
        for text in ["one", "", "a longer one than the others"] {
            sealer.seal(text.as_bytes(), &mut record).expect("sealed");
            expected.extend_from_slice(text.as_bytes());
            client.read_tls(&mut record.as_slice()).expect("read");
        }
        client.process_new_packets().expect("opened");
        let mut read = vec![0; expected.len()];
        client.reader().read_exact(&mut read).expect("what was sealed");
        assert_eq!(read, expected);

        sealer.seal(b"altered", &mut record).expect("sealed");
        *record.last_mut().expect("a tag") ^= 1;
        client.read_tls(&mut record.as_slice()).expect("read");
        assert!(client.process_new_packets().is_err());
        assert!(sealer.seal(&[0; 1 << 16], &mut record).is_err());
    }
}
