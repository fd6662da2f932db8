//! A server of JWK sets, and tokens signed for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use serde_json::{Value, json};

pub(crate) const RSA: &[u8] = include_bytes!("keys/rsa.private.pem");
pub(crate) const RSA_PUBLIC: &[u8] = include_bytes!("keys/rsa.public.pem");
pub(crate) const EC: &[u8] = include_bytes!("keys/ec.private.pem");
pub(crate) const ED: &[u8] = include_bytes!("keys/ed.private.pem");
pub(crate) const ATTACKER: &[u8] = include_bytes!("keys/attacker.private.pem");
/// The secret of the HS256 issuer.
pub(crate) const SECRET: &str = "a secret of thirty-two bytes or more";

/// A file of this folder's keys.
pub(crate) fn key_file(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rights/keys").join(name)
}

pub(crate) fn encoding_key(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::HS256 => EncodingKey::from_secret(SECRET.as_bytes()),
        Algorithm::RS256 => EncodingKey::from_rsa_pem(RSA).expect("a key"),
        Algorithm::ES256 => EncodingKey::from_ec_pem(EC).expect("a key"),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(ED).expect("a key"),
        other => panic!("no key for {other:?}"),
    }
}

/// The public key, as a set shows it.
pub(crate) fn jwk(algorithm: Algorithm, kid: &str) -> Value {
    let mut jwk =
        Jwk::from_encoding_key(&encoding_key(algorithm), algorithm).expect("a key that has a public part");
    jwk.common.key_id = Some(kid.to_owned());
    serde_json::to_value(jwk).expect("JSON")
}

pub(crate) fn header(algorithm: Algorithm, kid: Option<&str>) -> Header {
    Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) }
}

pub(crate) fn sign(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).expect("signed")
}

/// A token of `iss` for the user `ann`, valid for ten minutes.
pub(crate) fn claims(iss: &str) -> Value {
    json!({"iss": iss, "aud": "fanwire", "sub": "ann", "exp": now() + 600,
        "rights": [{"actions": ["publish", "subscribe", "history", "presence"], "channels": ["orders/{user}/**"]}]})
}

pub(crate) fn now() -> u64 {
    broker_core::unix_ms() / 1000
}

/// A header and claims with a signature of the test's making.
pub(crate) fn forged(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode(signature))
}

/// Shows a set under an address, which can be changed, and taken away.
#[derive(Clone)]
pub(crate) struct SetServer {
    pub(crate) address: SocketAddr,
    shown: Arc<Mutex<Option<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl SetServer {
    pub(crate) async fn start(keys: Value) -> Self {
        let shown = Arc::new(Mutex::new(Some(json!({"keys": keys}))));
        let asked = Arc::new(AtomicUsize::new(0));
        let (set, count) = (Arc::clone(&shown), Arc::clone(&asked));
        let answer = move || {
            count.fetch_add(1, Ordering::SeqCst);
            let set = set.lock().clone();
            async move {
                match set {
                    Some(set) => (axum::http::StatusCode::OK, set.to_string()),
                    None => (axum::http::StatusCode::INTERNAL_SERVER_ERROR, "no".to_owned()),
                }
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(
            async move { axum::serve(listener, Router::new().route("/jwks.json", get(answer))).await },
        );
        SetServer { address, shown, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    /// `None` answers 500 from now on.
    pub(crate) fn show(&self, keys: Option<Value>) {
        *self.shown.lock() = keys.map(|keys| json!({"keys": keys}));
    }

    pub(crate) fn times_asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}
