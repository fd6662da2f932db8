//! What the fuzzer of `fuzz/` calls. Its corpus runs as an ordinary test as well, so that what a fuzzer has found once
//! is looked at on every run.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::handshake::{Side, has_whole_record};

/// Has no certificate, and notes whose was asked for.
#[derive(Debug, Default)]
struct Asked(Mutex<Vec<Option<String>>>);

impl ResolvesServerCert for Asked {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.lock().push(hello.server_name().map(str::to_owned));
        None
    }
}

/// What a client says first, at once and in pieces (the first byte says of which size): the same is read of it, and
/// whoever cannot be served is told so by an alert.
pub fn hello(bytes: &[u8]) {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    recorded(bytes);
    let whole = shaken(bytes, usize::MAX);
    assert_eq!(shaken(bytes, usize::from(size) + 1), whole);
    let (failed, asked, alert) = whole;
    // Without a certificate nobody is served; the name is one that a certificate can have.
    assert!(failed || asked.is_empty());
    for name in asked.into_iter().flatten() {
        assert!(!name.is_empty() && name.len() < 256 && name.is_ascii(), "{name}");
    }
    if failed {
        assert!(alert.first().is_none_or(|kind| *kind == 21), "an alert");
    }
}

/// It is calculated with no less than a record, unless it is none.
fn recorded(bytes: &[u8]) {
    let is_handshake =
        bytes.first().is_none_or(|kind| *kind == 22) && bytes.get(1).is_none_or(|major| *major == 3);
    let announced = bytes.get(3..5).map(|length| usize::from(u16::from_be_bytes([length[0], length[1]])) + 5);
    let expected = if !is_handshake || bytes.is_empty() {
        true
    } else {
        announced.is_some_and(|announced| bytes.len() >= announced)
    };
    assert_eq!(has_whole_record(bytes), expected);
}

/// Whether it has failed, which names were asked for, and what was said.
fn shaken(bytes: &[u8], size: usize) -> (bool, Vec<Option<String>>, Vec<u8>) {
    let asked = Arc::new(Asked::default());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("there are some")
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&asked) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"mqtt".to_vec()];
    let mut side = Side::new(Arc::new(config)).expect("a configuration");
    let mut failed = false;
    for piece in bytes.chunks(size) {
        side.incoming.extend_from_slice(piece);
        if !has_whole_record(&side.incoming) {
            continue;
        }
        side = side.calculate();
        if side.outcome.is_err() {
            failed = true;
            break;
        }
    }
    let names = std::mem::take(&mut *asked.0.lock());
    (failed, names, side.outgoing)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_of_hellos_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/tls_hello");
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 5, "{folder}");
        for file in files {
            println!("{}", file.display());
            super::hello(&std::fs::read(&file).unwrap());
        }
    }
}
