//! The public keys of issuers: from a secret, a file, or fetched.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use broker_core::AuthError;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use outgoing::{Authorities, Client, Proxies, TlsProblem, Trust};
use parking_lot::Mutex;
use serde::Deserialize;

use crate::issuer::{Algorithm, Issuer, KeySource};

/// Shortest secret for HS256 (RFC 7518 §3.2).
pub(super) const MIN_SECRET_BYTES: usize = 32;
/// Largest document that is read, in bytes.
const MAX_DOCUMENT_BYTES: usize = 1 << 20;
/// Most keys of a set that are kept.
const MAX_KEYS: usize = 256;
/// Most keys that are tried for a token that names none.
const MAX_TRIED: usize = 8;
/// How long a fetch may take in all.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Mutex<Arc<[Known]>>,
    /// Where newer ones come from, if they can.
    origin: Option<Origin>,
    fingerprint: u64,
}

#[derive(Debug)]
struct Known {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Debug)]
struct Origin {
    place: Place,
    algorithms: Vec<Algorithm>,
    refresh: Duration,
    cooldown: Duration,
    /// When a set was had, and when one was last tried for. Held while one is fetched.
    times: tokio::sync::Mutex<()>,
    had: Mutex<Option<Instant>>,
    tried: Mutex<Option<Instant>>,
    /// Whether a newer set is being had in the background.
    renewing: AtomicBool,
}

#[derive(Clone, Debug)]
enum Place {
    File(PathBuf),
    Url { url: Uri, client: Client, authorities: u64 },
}

impl KeySet {
    /// Reads what can be read at once; a set behind a URL is fetched when it is needed.
    pub(super) fn open(issuer: &Issuer) -> Result<Self, (&'static str, String)> {
        let symmetric = issuer.algorithms.iter().all(|algorithm| algorithm.is_symmetric());
        match &issuer.keys {
            KeySource::Secret(secret) => {
                if !symmetric {
                    return Err(("secret", "a secret is for HS256 only".to_owned()));
                }
                if secret.len() < MIN_SECRET_BYTES {
                    let why = format!("HS256 needs at least {MIN_SECRET_BYTES} bytes (RFC 7518 §3.2)");
                    return Err(("secret", why));
                }
                let key = DecodingKey::from_secret(secret);
                Ok(Self::fixed(vec![Known { kid: None, algorithm: Algorithm::Hs256, key }], secret))
            }
            KeySource::PemFile(path) => {
                if symmetric {
                    return Err(("pem_file", "a public key is not for HS256".to_owned()));
                }
                let pem = read(path).map_err(|error| ("pem_file", error))?;
                let keys = pem_keys(&pem, &issuer.algorithms)
                    .map_err(|error| ("pem_file", format!("{}: {error}", path.display())))?;
                Ok(Self::fixed(keys, &pem))
            }
            KeySource::JwksFile(path) => {
                let document = read(path).map_err(|error| ("jwks_file", error))?;
                let keys = jwk_keys(&document, &issuer.algorithms, Trusted::File)
                    .map_err(|error| ("jwks_file", format!("{}: {error}", path.display())))?;
                Ok(Self {
                    origin: Some(Origin::new(Place::File(path.clone()), issuer, Some(Instant::now()))),
                    ..Self::fixed(keys, &[])
                })
            }
            KeySource::JwksUrl { url, ca_file } => {
                if symmetric {
                    return Err(("jwks_url", "a secret is not published under an address".to_owned()));
                }
                let pem = ca_file.as_deref().map(read_authorities).transpose()?;
                let client = client(pem.as_deref())?;
                let place = Place::Url { url: address(url)?, client, authorities: hash_of(&pem) };
                Ok(Self { origin: Some(Origin::new(place, issuer, None)), ..Self::fixed(Vec::new(), &[]) })
            }
        }
    }

    fn fixed(keys: Vec<Known>, material: &[u8]) -> Self {
        Self { keys: Mutex::new(keys.into()), origin: None, fingerprint: hash_of(&material) }
    }

    /// Whether the authorities that vouch for its address are those in this file now: a renewed file has the same name.
    pub(super) fn trusts(&self, ca_file: Option<&Path>) -> bool {
        let known = match self.origin.as_ref().map(|origin| &origin.place) {
            Some(Place::Url { authorities, .. }) => *authorities,
            _ => return true,
        };
        ca_file.map(read_authorities).transpose().is_ok_and(|pem| hash_of(&pem) == known)
    }

    /// Goes on with what another one has fetched from the same address, until a newer set is had.
    pub(super) fn adopt(&self, before: &Self) {
        if let (Some(origin), Some(other)) = (&self.origin, &before.origin) {
            *self.keys.lock() = Arc::clone(&before.keys.lock());
            *origin.had.lock() = *other.had.lock();
        }
    }

    /// Changes with the keys, where those are fixed: keys of a set come and go without a change of trust.
    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The keys that a token may have been signed with. One that names a key nobody knows makes the set be fetched
    /// again, but not often.
    pub(super) async fn find(
        self: &Arc<Self>,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Vec<DecodingKey>, AuthError> {
        let Some(origin) = &self.origin else { return Ok(self.matching(kid, algorithm, Kid::Ignored)) };
        if origin.is_missing() {
            self.renew(origin).await;
        } else if origin.is_due() {
            // An old set is good enough to answer with: nobody waits for a server that does not.
            self.renew_behind(origin);
        }
        let mut found = self.matching(kid, algorithm, Kid::Asked);
        if found.is_empty() {
            self.renew(origin).await;
            found = self.matching(kid, algorithm, Kid::Asked);
        }
        if found.is_empty() && origin.is_missing() {
            return Err(AuthError::Unavailable("the issuer's keys cannot be had now".to_owned()));
        }
        Ok(found)
    }

    fn matching(&self, kid: Option<&str>, algorithm: Algorithm, asked: Kid) -> Vec<DecodingKey> {
        let keys = Arc::clone(&*self.keys.lock());
        let named = |known: &&Known| match (asked, kid) {
            (Kid::Ignored, _) | (Kid::Asked, None) => true,
            (Kid::Asked, Some(kid)) => known.kid.as_deref() == Some(kid),
        };
        let fitting = keys.iter().filter(|known| known.algorithm == algorithm).filter(named);
        fitting.take(MAX_TRIED).map(|known| known.key.clone()).collect()
    }

    fn renew_behind(self: &Arc<Self>, origin: &Origin) {
        if origin.renewing.swap(true, Relaxed) {
            return;
        }
        let set = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(origin) = &set.origin {
                set.renew(origin).await;
                origin.renewing.store(false, Relaxed);
            }
        });
    }

    /// Gets a newer set, if none was tried for lately; the old one stays if that fails.
    async fn renew(&self, origin: &Origin) {
        let asked_at = Instant::now();
        let _one_at_a_time = origin.times.lock().await;
        let tried = *origin.tried.lock();
        // Somebody else's attempt, made since this one was asked for, serves too.
        if tried.is_some_and(|tried| tried >= asked_at || tried.elapsed() < origin.cooldown) {
            return;
        }
        *origin.tried.lock() = Some(Instant::now());
        match origin.place.keys(&origin.algorithms).await {
            Ok(keys) => {
                *self.keys.lock() = keys.into();
                *origin.had.lock() = Some(Instant::now());
            }
            Err(error) => {
                tracing::warn!(keys = %origin.place, %error, "an issuer's keys cannot be had; the known ones stay");
            }
        }
    }
}

/// Whether a token's `kid` decides. A single configured key has no name.
#[derive(Clone, Copy, PartialEq)]
enum Kid {
    Asked,
    Ignored,
}

impl Origin {
    fn new(place: Place, issuer: &Issuer, had: Option<Instant>) -> Self {
        Self {
            place,
            algorithms: issuer.algorithms.clone(),
            refresh: issuer.jwks_refresh,
            cooldown: issuer.jwks_cooldown,
            times: tokio::sync::Mutex::new(()),
            had: Mutex::new(had),
            tried: Mutex::new(None),
            renewing: AtomicBool::new(false),
        }
    }

    fn is_missing(&self) -> bool {
        self.had.lock().is_none()
    }

    fn is_due(&self) -> bool {
        self.had.lock().is_some_and(|had| had.elapsed() >= self.refresh)
    }
}

impl Place {
    async fn keys(&self, algorithms: &[Algorithm]) -> Result<Vec<Known>, String> {
        let place = self.clone();
        let fetched = match self {
            Place::File(_) => Bytes::new(),
            Place::Url { url, client, .. } => fetch(client, url).await?,
        };
        let algorithms = algorithms.to_owned();
        // A large set is a while's work, and files may be far away.
        let keys = tokio::task::spawn_blocking(move || match place {
            Place::File(path) => jwk_keys(&read(&path)?, &algorithms, Trusted::File),
            Place::Url { .. } => jwk_keys(&fetched, &algorithms, Trusted::Network),
        });
        keys.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

async fn fetch(client: &Client, url: &Uri) -> Result<Bytes, String> {
    let request = Request::get(url.clone()).header(header::ACCEPT, "application/json");
    let request = request.body(Bytes::new()).map_err(|error| error.to_string())?;
    let answer =
        client.fetch(request, MAX_DOCUMENT_BYTES, FETCH_TIMEOUT).await.map_err(|error| match error {
            outgoing::Error::Tls { problem: TlsProblem::UnknownAuthority, why } => {
                format!("{why}; `jwks_ca_file` names a private authority")
            }
            other => other.to_string(),
        })?;
    // Where keys come from is what is configured, not where that sends us: a redirect is another status.
    match answer.status() {
        StatusCode::OK => Ok(answer.into_body()),
        other => Err(outgoing::Error::Status(other).to_string()),
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::File(path) => path.display().fmt(f),
            Place::Url { url, .. } => url.fmt(f),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let problem = |error: std::io::Error| format!("{}: {error}", path.display());
    if std::fs::metadata(path).map_err(problem)?.len() > MAX_DOCUMENT_BYTES as u64 {
        return Err(format!("{}: more than {MAX_DOCUMENT_BYTES} bytes", path.display()));
    }
    std::fs::read(path).map_err(problem)
}

fn hash_of(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// The text of a `ca_file` that has at least one certificate.
fn read_authorities(path: &Path) -> Result<Vec<u8>, (&'static str, String)> {
    let wrong = |why: String| ("jwks_ca_file", why);
    let pem = read(path).map_err(wrong)?;
    Authorities::from_pem(&pem).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    Ok(pem)
}

fn address(url: &str) -> Result<Uri, (&'static str, String)> {
    let wrong = || ("jwks_url", format!("{url:?} is not an http or https address"));
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    Client::check(&uri).map_err(|_| wrong())?;
    Ok(uri)
}

fn client(authorities: Option<&[u8]>) -> Result<Client, (&'static str, String)> {
    let trust = match authorities.map(Authorities::from_pem) {
        None => Trust::System,
        Some(read) => Trust::Authorities(read.map_err(|error| ("jwks_ca_file", error.to_string()))?),
    };
    let proxies = Proxies::Environment;
    // One document in ten minutes: nothing is worth keeping in between.
    let mut config = outgoing::Config::default();
    config.trust = trust;
    config.proxies = proxies;
    config.max_idle_per_host = 0;
    Ok(Client::new(config))
}

/// A public key, for each of the algorithms that it can be.
fn pem_keys(pem: &[u8], algorithms: &[Algorithm]) -> Result<Vec<Known>, String> {
    if String::from_utf8_lossy(pem).contains("PRIVATE KEY") {
        return Err("a private key; the public one is needed here".to_owned());
    }
    let read = |algorithm| match algorithm {
        Algorithm::Hs256 => None,
        Algorithm::Rs256 => DecodingKey::from_rsa_pem(pem).ok(),
        Algorithm::Es256 => DecodingKey::from_ec_pem(pem).ok(),
        Algorithm::EdDsa => DecodingKey::from_ed_pem(pem).ok(),
    };
    let keys: Vec<Known> = algorithms
        .iter()
        .filter_map(|algorithm| read(*algorithm).map(|key| Known { kid: None, algorithm: *algorithm, key }))
        .collect();
    if keys.is_empty() {
        let names: Vec<_> = algorithms.iter().map(|algorithm| algorithm.name()).collect();
        return Err(format!("not a PEM public key for {}", names.join(" or ")));
    }
    Ok(keys)
}

/// Whether bytes are a set with keys in it, or a key.
#[cfg(any(test, fuzzing))]
pub(super) fn any_keys(bytes: &[u8]) -> bool {
    let sets = [Trusted::File, Trusted::Network].map(|trust| jwk_keys(bytes, &Algorithm::ALL, trust));
    let [file, network] = sets.map(|keys| keys.unwrap_or_default());
    assert!(file.len() >= network.len() && file.len() <= MAX_KEYS);
    assert!(network.iter().all(|key| !key.algorithm.is_symmetric()));
    !file.is_empty() || pem_keys(bytes, &Algorithm::ALL).is_ok()
}

/// How much a document is trusted with.
#[derive(Clone, Copy, PartialEq)]
enum Trusted {
    /// Secrets too.
    File,
    /// Public keys only.
    Network,
}

/// The keys of a set that can be used here. Others are passed over, as RFC 7517 §5 asks.
fn jwk_keys(document: &[u8], algorithms: &[Algorithm], trust: Trusted) -> Result<Vec<Known>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(document).map_err(|error| format!("not a JWK set: {error}"))?;
    let usable = set.keys.into_iter().filter_map(|key| {
        let jwk: Jwk = serde_json::from_value(key).ok()?;
        let algorithm = algorithm_of(&jwk)?;
        let secret_from_network = algorithm.is_symmetric() && trust == Trusted::Network;
        if secret_from_network || !algorithms.contains(&algorithm) {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Known { kid: jwk.common.key_id, algorithm, key })
    });
    Ok(usable.take(MAX_KEYS).collect())
}

/// The one algorithm that a key is for, by its type; `None` if it says that it is for something else.
fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(key) => {
            // Base64 has four characters for three bytes.
            (key.value.len() * 3 / 4 >= MIN_SECRET_BYTES)
                .then_some((Algorithm::Hs256, KeyAlgorithm::HS256))?
        }
        AlgorithmParameters::RSA(_) => (Algorithm::Rs256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::Es256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDsa, KeyAlgorithm::EdDSA)
        }
        _ => return None,
    };
    let common = &jwk.common;
    let says_so = common.key_algorithm.is_none_or(|named| named == name)
        && common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    says_so.then_some(algorithm)
}
