//! Signed tokens (JSON Web Tokens, RFC 7519) and who may issue them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker_core::{
    Action, AuthError, Pattern, Principal, Rights, RightsTemplate, Source, SourceKind, unix_ms,
};
use jsonwebtoken::{Validation, decode};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Rate;
use crate::jwks::KeySet;
use crate::rate::{SharedRates, UserRate};

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// HMAC with SHA-256 and a shared secret.
    Hs256,
    /// RSA (PKCS #1 v1.5) with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 4] = [Self::Hs256, Self::Rs256, Self::Es256, Self::EdDsa];

    /// Its name in a token's header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(super) fn is_symmetric(self) -> bool {
        self == Self::Hs256
    }

    pub(super) fn checked(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// Where an issuer's keys come from. Never from a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeySource {
    /// A secret that both sides know, for HS256; at least 32 bytes (RFC 7518 §3.2).
    Secret(Vec<u8>),
    /// One public key in PEM form (`PUBLIC KEY`, or `RSA PUBLIC KEY`).
    PemFile(PathBuf),
    /// A JWK set (RFC 7517).
    JwksFile(PathBuf),
    /// A JWK set over http or https, fetched when it is first needed, when it is old, and when a token names a key that
    /// it does not have. If it cannot be had, the one before stays in use. The runtime that asks needs IO and time.
    JwksUrl {
        /// Where.
        url: String,
        /// Authorities to trust instead of the system's, PEM.
        ca_file: Option<PathBuf>,
    },
}

/// Somebody whose tokens are accepted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Issuer {
    /// The `iss` that a token must have; `None`: tokens without, or with one that no other issuer has.
    pub iss: Option<String>,
    /// Audiences, one of which must be in `aud`; empty: not checked.
    pub aud: Vec<String>,
    /// The algorithms that a token may use. Secrets and public keys do not go together.
    pub algorithms: Vec<Algorithm>,
    /// Its keys.
    pub keys: KeySource,
    /// Rights of tokens without the claim `rights`.
    pub rights: RightsTemplate,
    /// How often one user may act; `None`: no limit.
    pub rate: Option<Rate>,
    /// How far clocks may be apart for `exp` and `nbf`. Default 5 s.
    pub leeway: Duration,
    /// How old a fetched set may become. Default 10 min.
    pub jwks_refresh: Duration,
    /// Time between two fetches at least, whatever tokens ask for. Default 10 s.
    pub jwks_cooldown: Duration,
}

impl Default for Issuer {
    fn default() -> Self {
        Self {
            iss: None,
            aud: Vec::new(),
            algorithms: Vec::new(),
            keys: KeySource::Secret(Vec::new()),
            rights: RightsTemplate::default(),
            rate: None,
            leeway: Duration::from_secs(5),
            jwks_refresh: Duration::from_secs(600),
            jwks_cooldown: Duration::from_secs(10),
        }
    }
}

/// Longest token, in bytes. Larger than any header or cookie may be.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Most rules of one token, and channels of one rule.
const MAX_RULES: usize = 256;
/// Longest `sub`, in bytes.
const MAX_SUBJECT_BYTES: usize = 1024;

/// An issuer with its keys at hand.
#[derive(Debug)]
pub(super) struct Verifier {
    issuer: Issuer,
    keys: Arc<KeySet>,
    default_rights: Option<Arc<Rights>>,
    rates: Option<Arc<SharedRates>>,
    /// Fingerprint of all that a signature is judged by.
    trust: u64,
    /// And of the default rights too.
    trust_with_rights: u64,
}

/// What a token says of itself before anything of it is believed: only to find out whose key to use.
pub(super) struct Unverified {
    algorithm: Algorithm,
    kid: Option<String>,
    iss: Option<String>,
}

/// Whether a credential looks like a token: three parts, the first of them a JSON object.
pub(super) fn looks_like_token(text: &str) -> bool {
    text.len() <= MAX_TOKEN_BYTES && text.starts_with("eyJ") && text.split('.').count() == 3
}

impl Unverified {
    /// # Errors
    /// It is no token, or one that nobody here takes.
    pub(super) fn read(token: &str) -> Result<Self, AuthError> {
        let mut parts = token.split('.');
        let header = part(parts.next()).ok_or_else(|| refused("the token's header is no JSON object"))?;
        let claims = part(parts.next()).ok_or_else(|| refused("the token's claims are no JSON object"))?;
        // Extensions that must be understood are not, whatever they are (RFC 7515 §4.1.11).
        if header.contains_key("crit") {
            return Err(refused("the token needs extensions that are not supported"));
        }
        let name = header.get("alg").and_then(Value::as_str).unwrap_or_default();
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name);
        Ok(Self {
            algorithm: algorithm.ok_or_else(|| refused("the token's algorithm is not accepted"))?,
            kid: text(&header, "kid")?,
            iss: text(&claims, "iss")?,
        })
    }

    pub(super) fn iss(&self) -> Option<&str> {
        self.iss.as_deref()
    }
}

fn part(text: Option<&str>) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text?).ok()?).ok()
}

fn text(object: &Map<String, Value>, name: &str) -> Result<Option<String>, AuthError> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(refused(&format!("the token's `{name}` is no text"))),
    }
}

fn refused(why: &str) -> AuthError {
    AuthError::Invalid(why.to_owned())
}

/// One element of the claim `rights`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimedRule {
    actions: Vec<String>,
    channels: Vec<String>,
}

impl Verifier {
    /// With the keys of the one before, if they come from the same place.
    ///
    /// # Errors
    /// Which field is wrong, and how.
    pub(super) fn new(issuer: Issuer, before: Option<&Self>) -> Result<Self, (&'static str, String)> {
        if issuer.algorithms.is_empty() {
            return Err(("algorithms", "at least one is needed".to_owned()));
        }
        let symmetric = issuer.algorithms.iter().filter(|algorithm| algorithm.is_symmetric()).count();
        if symmetric > 0 && symmetric < issuer.algorithms.len() {
            // Else a public key could be used as a secret that everybody knows.
            return Err(("algorithms", "HS256 cannot stand beside algorithms with public keys".to_owned()));
        }
        // Somebody else's crate may have switched another backend on; ours stays the one that is used.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let keys = match before {
            Some(before) if before.keeps_keys_of(&issuer) => match &issuer.keys {
                KeySource::JwksUrl { ca_file, .. } if !before.keys.trusts(ca_file.as_deref()) => {
                    let keys = KeySet::open(&issuer)?;
                    keys.adopt(&before.keys);
                    Arc::new(keys)
                }
                _ => Arc::clone(&before.keys),
            },
            _ => Arc::new(KeySet::open(&issuer)?),
        };
        let default_rights = (!issuer.rights.has_user()).then(|| Arc::new(issuer.rights.for_user(None)));
        let rates = match (issuer.rate, before) {
            (Some(rate), Some(before)) if before.issuer.rate == Some(rate) => before.rates.clone(),
            (rate, _) => rate.map(|rate| Arc::new(SharedRates::new(rate))),
        };
        let mut hasher = DefaultHasher::new();
        (&issuer.iss, &issuer.aud, &issuer.algorithms, &issuer.keys).hash(&mut hasher);
        keys.fingerprint().hash(&mut hasher);
        let trust = hasher.finish();
        issuer.rights.hash(&mut hasher);
        Ok(Self { trust, trust_with_rights: hasher.finish(), issuer, keys, default_rights, rates })
    }

    /// The rate of its users, if they have one.
    pub(super) fn rates(&self) -> Option<&SharedRates> {
        self.rates.as_deref()
    }

    /// A fetched set is not fetched again for another configuration of the same issuer.
    fn keeps_keys_of(&self, issuer: &Issuer) -> bool {
        matches!(issuer.keys, KeySource::JwksUrl { .. })
            && self.issuer.keys == issuer.keys
            && self.issuer.algorithms == issuer.algorithms
            && self.issuer.jwks_refresh == issuer.jwks_refresh
            && self.issuer.jwks_cooldown == issuer.jwks_cooldown
    }

    pub(super) fn iss(&self) -> Option<&str> {
        self.issuer.iss.as_deref()
    }

    /// Whether a token that was accepted before still would be, its times aside.
    pub(super) fn stands_for(&self, source: &Source) -> bool {
        source.version == self.trust || source.version == self.trust_with_rights
    }

    /// What a token that was accepted before would make now: another principal if its rights were the issuer's, and
    /// those have changed.
    pub(super) fn renewed(&self, principal: &Principal) -> Option<Principal> {
        let source = principal.source();
        if source.trust != self.trust {
            return None;
        }
        // The token's own rights are as they were.
        if source.version == self.trust {
            return Some(principal.clone());
        }
        Some(Principal::new(principal.user(), self.default_rights_of(principal.user())))
    }

    fn default_rights_of(&self, user: Option<&str>) -> Arc<Rights> {
        self.default_rights.clone().unwrap_or_else(|| Arc::new(self.issuer.rights.for_user(user)))
    }

    /// Who a token speaks for.
    pub(super) async fn verify(&self, token: &str, unverified: &Unverified) -> Result<Principal, AuthError> {
        let algorithm = unverified.algorithm;
        if !self.issuer.algorithms.contains(&algorithm) {
            return Err(refused("the token's algorithm is not one of its issuer's"));
        }
        let keys = self.keys.find(unverified.kid.as_deref(), algorithm).await?;
        let validation = self.validation(algorithm);
        let mut outcome = Err(refused("the token's key is not known"));
        for key in keys {
            match decode::<Map<String, Value>>(token, &key, &validation) {
                Ok(decoded) => return self.principal(&decoded.claims),
                Err(error) => outcome = Err(refused(reason(error.kind()))),
            }
        }
        outcome
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm.checked());
        validation.leeway = self.issuer.leeway.as_secs();
        validation.validate_nbf = true;
        // A claim that is checked only where it is present would be passed by leaving it out.
        let mut required = vec!["exp"];
        if let Some(iss) = &self.issuer.iss {
            validation.set_issuer(&[iss]);
            required.push("iss");
        }
        validation.validate_aud = !self.issuer.aud.is_empty();
        if validation.validate_aud {
            validation.set_audience(&self.issuer.aud);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn principal(&self, claims: &Map<String, Value>) -> Result<Principal, AuthError> {
        let user = text(claims, "sub")?.filter(|sub| !sub.is_empty());
        if user.as_ref().is_some_and(|sub| sub.len() > MAX_SUBJECT_BYTES) {
            return Err(refused("the token's `sub` is too long"));
        }
        let user = user.as_deref();
        let (rights, version) = match claims.get("rights").filter(|rights| !rights.is_null()) {
            Some(rights) => (Arc::new(claimed(rights)?.for_user(user)), self.trust),
            None => (self.default_rights_of(user), self.trust_with_rights),
        };
        // Present, or the signature would not have been looked at. Times may have fractions.
        let exp = claims.get("exp").and_then(Value::as_f64).unwrap_or_default();
        let until = ((exp * 1000.0) as u64).saturating_add(self.issuer.leeway.as_secs() * 1000);
        if until <= unix_ms() {
            return Err(refused("the token has expired"));
        }
        let name = self.issuer.iss.as_deref().unwrap_or_default().into();
        let mut source = Source::default();
        source.kind = SourceKind::Token;
        source.name = name;
        source.trust = self.trust;
        source.version = version;
        let mut principal = Principal::new(user, rights).from_source(source).expiring_at(until);
        if let Some(rates) = &self.rates {
            let user = user.unwrap_or_default().into();
            principal = principal.throttled(Arc::new(UserRate { rates: Arc::clone(rates), user }));
        }
        Ok(principal)
    }
}

/// The rights that a token brings. What cannot be understood makes the token invalid: half of the rights would be a
/// riddle to whoever issued it.
fn claimed(rights: &Value) -> Result<RightsTemplate, AuthError> {
    let rules = Vec::<ClaimedRule>::deserialize(rights)
        .map_err(|error| refused(&format!("the token's `rights`: {error}")))?;
    let count = rules.iter().fold(rules.len(), |count, rule| count + rule.channels.len());
    if count > MAX_RULES {
        return Err(refused("the token's `rights` are too many"));
    }
    let mut template = RightsTemplate::default();
    for rule in &rules {
        let actions = rule.actions.iter().map(|name| {
            Action::from_name(name)
                .ok_or_else(|| refused(&format!("the token's `rights`: no action {name:?}")))
        });
        let actions = actions.collect::<Result<Vec<_>, _>>()?;
        for channel in &rule.channels {
            let pattern = Pattern::parse(channel)
                .map_err(|error| refused(&format!("the token's `rights`: {channel:?}: {error}")))?;
            template = template.allow(actions.iter().copied(), pattern);
        }
    }
    Ok(template)
}

/// What the client is told; never with anything of the token.
fn reason(kind: &jsonwebtoken::errors::ErrorKind) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::InvalidIssuer => "the token's issuer is not known here",
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "exp" => "the token has no `exp`",
            "aud" => "the token has no `aud`",
            "iss" => "the token has no `iss`",
            _ => "the token lacks a claim",
        },
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        ErrorKind::InvalidClaimFormat(_) => "a claim of the token has the wrong form",
        _ => "the token is not valid",
    }
}
