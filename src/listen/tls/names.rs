//! Which certificate is shown to whom.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::Certificate;

/// By the name that the client asks for, and by what its signatures can be.
#[derive(Debug)]
pub(super) struct ByName(pub(super) Vec<Arc<Certificate>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let name = hello.server_name();
        let named = self.0.iter().filter(|one| name.is_some_and(|name| has_name(&one.names, name)));
        // A client that can check no signature of the right one is told so by the handshake.
        let fits = |one: &&Arc<Certificate>| one.key.key.choose_scheme(schemes).is_some();
        let found = named.clone().find(fits).or_else(|| named.clone().next());
        let found = found.or_else(|| self.0.iter().find(fits)).or_else(|| self.0.first());
        found.map(|one| Arc::clone(&one.key))
    }
}

/// `*.` stands for one label (RFC 9525 §6.3).
fn has_name(names: &[String], wanted: &str) -> bool {
    let below = wanted.split_once('.').map(|(_, rest)| rest);
    names.iter().any(|name| match name.strip_prefix("*.") {
        Some(rest) => below.is_some_and(|below| below.eq_ignore_ascii_case(rest)),
        None => name.eq_ignore_ascii_case(wanted),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_label() {
        let names = ["a.example".to_owned(), "*.b.example".to_owned()];
        for (wanted, has) in [
            ("a.example", true),
            ("A.Example", true),
            ("x.a.example", false),
            ("x.b.example", true),
            ("x.y.b.example", false),
            ("b.example", false),
        ] {
            assert_eq!(has_name(&names, wanted), has, "{wanted}");
        }
    }
}
