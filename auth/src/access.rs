//! What a configuration says about clients, and that made ready for answering.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use broker_core::{AuthError, Credentials, Principal, Rights, RightsTemplate, Source, SourceKind};

use crate::issuer::{Unverified, Verifier, looks_like_token};
use crate::password::{Account, Checker, check_hash};
use crate::rate::{OwnRate, RateOf, SharedRates, UsedRate};
use crate::{Issuer, Key, KeyHash, PasswordLimits, Rate, User};

/// Everything that is configured about who may do what.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Access {
    /// Everybody may do everything, and credentials are not looked at; what else is said here does not count.
    pub open: bool,
    /// What clients without credentials may do; `None`: they are asked for some.
    pub anonymous: Option<Rights>,
    /// Keys.
    pub keys: Vec<Key>,
    /// Users with passwords.
    pub users: Vec<User>,
    /// Whose tokens are accepted.
    pub issuers: Vec<Issuer>,
    /// What clients may do whose TLS certificate names them; `None`: it is not looked at.
    pub certificates: Option<Certificates>,
    /// Web pages of other origins that may use credentials (those of keys with a list of their own aside); `None`: the
    /// fronts' origin policies alone decide.
    pub allowed_origins: Option<Vec<String>>,
    /// Bounds of checking passwords.
    pub passwords: PasswordLimits,
}

impl Access {
    /// Everybody may do everything.
    pub fn open() -> Self {
        Self { open: true, ..Self::default() }
    }
}

/// What a certificate is worth, to a client that offers nothing else. That it is genuine was found in the handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Certificates {
    /// Whether one that has the name of one of [`Access::users`] stands for that user's password.
    pub users: bool,
    /// What the others may do; `{user}` is the name.
    pub rights: RightsTemplate,
}

/// What is wrong with an [`Access`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {message}")]
#[non_exhaustive]
pub struct AccessError {
    /// Its place as the configuration writes it: `issuers[0].pem_file`.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

impl AccessError {
    /// What is wrong, and where.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

fn wrong(list: &str, index: usize, field: &str, message: impl Into<String>) -> AccessError {
    AccessError { key: format!("{list}[{index}].{field}"), message: message.into() }
}

/// An [`Access`] that answers.
#[derive(Debug)]
pub(super) struct Answers {
    open: bool,
    anonymous: Option<Principal>,
    keys: HashMap<u64, Vec<Arc<KnownKey>>>,
    keys_by_id: HashMap<Arc<str>, Arc<KnownKey>>,
    users: HashMap<Arc<str>, Account>,
    rates: HashMap<(SourceKind, Arc<str>), Arc<OwnRate>>,
    issuers: Vec<Verifier>,
    allowed_origins: Option<Vec<String>>,
    checker: Option<Checker>,
    certificates: Option<Certificates>,
}

#[derive(Debug)]
struct KnownKey {
    hash: KeyHash,
    principal: Principal,
    origins: Option<Vec<String>>,
}

impl Answers {
    /// Makes ready what `access` says; what `before` has used up of rates and fetched of keys is kept.
    pub(super) fn new(access: Access, before: Option<&Self>) -> Result<Self, AccessError> {
        let Access { open, .. } = access;
        let access = if open { Access { anonymous: Some(Rights::all()), ..Access::open() } } else { access };
        let mut answers = Self {
            open,
            anonymous: access.anonymous.map(anonymous),
            keys: HashMap::new(),
            keys_by_id: HashMap::new(),
            users: HashMap::new(),
            rates: HashMap::new(),
            issuers: Vec::new(),
            allowed_origins: access.allowed_origins,
            checker: None,
            certificates: access.certificates,
        };
        for (index, key) in access.keys.into_iter().enumerate() {
            if key.id.is_empty() || answers.keys_by_id.contains_key(&key.id) {
                return Err(wrong("keys", index, "id", "empty, or the id of another key"));
            }
            let known = answers.key(&key, before);
            answers.keys.entry(known.hash.index()).or_default().push(Arc::clone(&known));
            answers.keys_by_id.insert(key.id, known);
        }
        for (index, user) in access.users.into_iter().enumerate() {
            if user.name.is_empty() || answers.users.contains_key(&user.name) {
                return Err(wrong("users", index, "name", "empty, or the name of another user"));
            }
            check_hash(&user.password_hash).map_err(|why| wrong("users", index, "password_hash", why))?;
            let mut source = Source::default();
            source.kind = SourceKind::Password;
            source.name = Arc::clone(&user.name);
            source.trust = fingerprint(&user.password_hash);
            source.version = fingerprint(&(&user.password_hash, &user.rights));
            let principal = answers.principal(source, &user.rights, user.rate, before);
            answers.users.insert(user.name, Account { password_hash: user.password_hash, principal });
        }
        if !answers.users.is_empty() {
            let checker = Checker::new(access.passwords);
            answers.checker = Some(checker.map_err(|why| wrong("users", 0, "password_hash", why))?);
        }
        for (index, issuer) in access.issuers.into_iter().enumerate() {
            if answers.issuers.iter().any(|known| known.iss() == issuer.iss.as_deref()) {
                return Err(wrong("issuers", index, "iss", "another issuer has the same, or also none"));
            }
            let before = before.and_then(|before| before.issuer(issuer.iss.as_deref()));
            let verifier = Verifier::new(issuer, before);
            answers.issuers.push(verifier.map_err(|(field, why)| wrong("issuers", index, field, why))?);
        }
        Ok(answers)
    }

    fn key(&mut self, key: &Key, before: Option<&Self>) -> Arc<KnownKey> {
        let mut source = Source::default();
        source.kind = SourceKind::Key;
        source.name = Arc::clone(&key.id);
        source.trust = fingerprint(&key.hash);
        source.version = fingerprint(&(key.hash, &key.rights, &key.origins));
        let principal = self.principal(source, &key.rights, key.rate, before);
        Arc::new(KnownKey { hash: key.hash, principal, origins: key.origins.clone() })
    }

    fn principal(
        &mut self,
        source: Source,
        rights: &RightsTemplate,
        rate: Option<Rate>,
        before: Option<&Self>,
    ) -> Principal {
        let at = (source.kind, Arc::clone(&source.name));
        let rights = Arc::new(rights.for_user(Some(&source.name)));
        let principal = Principal::new(Some(&at.1), rights).from_source(source);
        let Some(rate) = rate else { return principal };
        let own = before.and_then(|before| before.rates.get(&at).cloned());
        let own = own.unwrap_or_else(|| Arc::new(OwnRate::new(rate)));
        own.set(rate);
        self.rates.insert(at, Arc::clone(&own));
        principal.throttled(own)
    }

    /// What was used of all rates since this was asked last.
    pub(super) fn take_used_rates(&self) -> Vec<UsedRate> {
        let own = self.rates.iter().filter_map(|((kind, name), own)| {
            let of = if *kind == SourceKind::Key { RateOf::Key } else { RateOf::User };
            Some(UsedRate { of, name: Arc::clone(name), count: own.take_used() })
                .filter(|used| used.count > 0)
        });
        let mut used: Vec<_> = own.collect();
        for issuer in &self.issuers {
            let users = issuer.rates().map(SharedRates::take_used).unwrap_or_default();
            let of = RateOf::Issued(issuer.iss().map(Into::into));
            used.extend(users.into_iter().map(|(name, count)| UsedRate { of: of.clone(), name, count }));
        }
        used
    }

    /// So much was used of a rate on another node. One that is not known here is nobody's.
    pub(super) fn used_elsewhere(&self, used: &UsedRate) {
        let kind = match &used.of {
            RateOf::Issued(iss) => {
                if let Some(rates) = self.issuer(iss.as_deref()).and_then(Verifier::rates) {
                    rates.used_elsewhere(&used.name, used.count);
                }
                return;
            }
            RateOf::Key => SourceKind::Key,
            RateOf::User => SourceKind::Password,
        };
        if let Some(own) = self.rates.get(&(kind, Arc::clone(&used.name))) {
            own.used_elsewhere(used.count);
        }
    }

    fn issuer(&self, iss: Option<&str>) -> Option<&Verifier> {
        self.issuers.iter().find(|issuer| issuer.iss() == iss)
    }

    /// Who is this, where that takes no time: nobody in particular, or a key.
    pub(super) fn at_once(&self, credentials: &Credentials<'_>) -> Option<Result<Principal, AuthError>> {
        let secret = credentials.password.or(credentials.token.map(str::as_bytes));
        let principal = match secret {
            _ if self.open => return Some(self.anonymous.clone().ok_or(AuthError::Required)),
            // A bare user name claims nothing that a secret would back, so it stays anonymous.
            None => match credentials.certificate.and_then(|name| self.by_certificate(name)) {
                Some(certified) => {
                    let origin = self.check_origin(&certified, credentials.cross_origin);
                    return Some(origin.map(|()| certified));
                }
                None => self.anonymous.as_ref(),
            },
            Some(secret) => Some(&self.find_key(secret)?.principal),
        };
        let Some(principal) = principal else { return Some(Err(AuthError::Required)) };
        Some(self.check_origin(principal, credentials.cross_origin).map(|()| principal.clone()))
    }

    /// Who is this, where [`at_once`](Self::at_once) could not say?
    pub(super) async fn authenticate(&self, credentials: Credentials<'_>) -> Result<Principal, AuthError> {
        let principal = match (credentials.password, credentials.token) {
            (Some(password), _) => {
                let from = credentials.remote.map(|remote| remote.ip());
                self.by_password(credentials.user, password, from).await?
            }
            (None, Some(token)) => self.by_token(token).await?,
            (None, None) => return Err(AuthError::Required),
        };
        self.check_origin(&principal, credentials.cross_origin)?;
        Ok(principal)
    }

    async fn by_token(&self, token: &str) -> Result<Principal, AuthError> {
        if !self.issuers.is_empty() && looks_like_token(token) {
            return self.by_issuer(token).await;
        }
        Err(AuthError::Invalid("no such key".to_owned()))
    }

    async fn by_issuer(&self, token: &str) -> Result<Principal, AuthError> {
        let unverified = Unverified::read(token)?;
        let issuer = self.issuer(unverified.iss()).or_else(|| self.issuer(None));
        let Some(issuer) = issuer else {
            return Err(AuthError::Invalid("the token's issuer is not known here".to_owned()));
        };
        issuer.verify(token, &unverified).await
    }

    /// A password may be a key or a token: MQTT has no other place for one.
    async fn by_password(
        &self,
        user: Option<&str>,
        password: &[u8],
        from: Option<IpAddr>,
    ) -> Result<Principal, AuthError> {
        let account = user.and_then(|user| self.users.get(user));
        if account.is_none()
            && !self.issuers.is_empty()
            && let Ok(token) = std::str::from_utf8(password)
            && looks_like_token(token)
        {
            return self.by_issuer(token).await;
        }
        match &self.checker {
            Some(checker) => checker.check(user.unwrap_or_default(), password, account, from).await,
            None => Err(AuthError::Invalid("wrong user name or password".to_owned())),
        }
    }

    /// `None` where certificates are not looked at.
    fn by_certificate(&self, name: &str) -> Option<Principal> {
        let Certificates { users, rights } = self.certificates.as_ref()?;
        if let Some(account) = self.users.get(name).filter(|_| *users) {
            return Some(account.principal.clone());
        }
        let name: Arc<str> = name.into();
        let version = fingerprint(rights);
        let mut source = Source::default();
        source.kind = SourceKind::Certificate;
        source.name = Arc::clone(&name);
        source.version = version;
        let rights = Arc::new(rights.for_user(Some(&name)));
        Some(Principal::new(Some(&name), rights).from_source(source))
    }

    fn find_key(&self, secret: &[u8]) -> Option<&Arc<KnownKey>> {
        if self.keys.is_empty() {
            return None;
        }
        let hash = KeyHash::of(secret);
        self.keys.get(&hash.index())?.iter().find(|key| key.hash.equals(&hash))
    }

    fn check_origin(&self, principal: &Principal, origin: Option<&str>) -> Result<(), AuthError> {
        let Some(origin) = origin else { return Ok(()) };
        let source = principal.source();
        let own = (source.kind == SourceKind::Key)
            .then(|| self.keys_by_id.get(&source.name).and_then(|key| key.origins.as_ref()))
            .flatten();
        match own.or(self.allowed_origins.as_ref()) {
            Some(allowed) if !allowed.iter().any(|one| one.eq_ignore_ascii_case(origin)) => {
                Err(AuthError::Origin(origin.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Whether the same credentials would make the same principal now.
    pub(super) fn still_holds(&self, principal: &Principal) -> bool {
        let source = principal.source();
        match source.kind {
            SourceKind::Token => self.issuer_of(source).is_some_and(|issuer| issuer.stands_for(source)),
            // Not one of ours.
            SourceKind::Other => true,
            SourceKind::Certificate => {
                self.by_certificate(&source.name).is_some_and(|now| now.source() == source)
            }
            _ => self.known(source).is_some_and(|known| known.source() == source),
        }
    }

    /// What the same credentials would make now.
    pub(super) fn renewed(&self, principal: &Principal) -> Option<Principal> {
        let source = principal.source();
        match source.kind {
            _ if self.open => self.anonymous.clone(),
            SourceKind::Token => self.issuer_of(source)?.renewed(principal),
            SourceKind::Other => Some(principal.clone()),
            SourceKind::Certificate => self.by_certificate(&source.name),
            _ => self.known(source).filter(|known| known.source().trust == source.trust).cloned(),
        }
    }

    fn known(&self, source: &Source) -> Option<&Principal> {
        match source.kind {
            SourceKind::Anonymous => self.anonymous.as_ref(),
            SourceKind::Key => self.keys_by_id.get(&source.name).map(|key| &key.principal),
            SourceKind::Password => self.users.get(&source.name).map(|account| &account.principal),
            SourceKind::Token | SourceKind::Other | SourceKind::Certificate => None,
        }
    }

    fn issuer_of(&self, source: &Source) -> Option<&Verifier> {
        self.issuer((!source.name.is_empty()).then_some(&*source.name))
    }
}

fn anonymous(rights: Rights) -> Principal {
    let version = fingerprint(&rights);
    let mut source = Source::default();
    source.version = version;
    Principal::anonymous(rights).from_source(source)
}

fn fingerprint(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
