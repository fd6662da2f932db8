//! Who may do what, as it is written: `[anonymous]`, `[[keys]]`, `[[users]]`, `[[issuers]]`, `[auth]`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use broker_core::{Action, Pattern, Rights, RightsTemplate};
use http_edge::OriginPolicy;
use serde::{Deserialize, Serialize};

use auth::{
    Access, AccessError, Algorithm, Certificates, Issuer, Key, KeyHash, KeySource, PasswordLimits, Rate, User,
};
use settings::{AllowedOrigin, CookieName, Origin, Period, Span, Text};

/// Actions on channels.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    actions: Vec<ActionName>,
    channels: Vec<Text<Pattern>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum ActionName {
    Publish,
    Subscribe,
    History,
    Presence,
    Manage,
    Request,
}

impl From<ActionName> for Action {
    fn from(name: ActionName) -> Self {
        match name {
            ActionName::Publish => Action::Publish,
            ActionName::Subscribe => Action::Subscribe,
            ActionName::History => Action::History,
            ActionName::Presence => Action::Presence,
            ActionName::Manage => Action::Manage,
            ActionName::Request => Action::Request,
        }
    }
}

pub(super) fn template(allow: &[Grant], deny: &[Grant]) -> RightsTemplate {
    let rules = |grants: &[Grant]| {
        let rule = |grant: &Grant| {
            let actions: Vec<Action> = grant.actions.iter().copied().map(Action::from).collect();
            let channels = grant.channels.clone();
            channels.into_iter().map(move |channel| (actions.clone(), channel.0))
        };
        grants.iter().flat_map(rule).collect::<Vec<_>>()
    };
    let add = |template: RightsTemplate, (actions, pattern)| template.allow(actions, pattern);
    let template = rules(allow).into_iter().fold(RightsTemplate::default(), add);
    rules(deny).into_iter().fold(template, |template, (actions, pattern)| template.deny(actions, pattern))
}

/// What anonymous clients may do: nothing that no `allow` grants, and nothing that a `deny` names.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Anonymous {
    allow: Vec<Grant>,
    deny: Vec<Grant>,
}

impl Anonymous {
    pub(super) fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// `None` if nothing is allowed: then clients are asked for credentials.
    fn rights(&self) -> Option<Rights> {
        (!self.allow.is_empty()).then(|| template(&self.allow, &self.deny).for_user(None))
    }

    /// The first pattern that only a user could fill.
    fn with_user(&self) -> Option<&Pattern> {
        let mut patterns = self.allow.iter().flat_map(|grant| &grant.channels).map(|channel| &channel.0);
        patterns.find(|pattern| pattern.has_user())
    }
}

/// One `[[keys]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyEntry {
    id: String,
    hash: Text<KeyHash>,
    #[serde(default)]
    rights: Vec<Grant>,
    #[serde(default)]
    deny: Vec<Grant>,
    #[serde(default)]
    origins: Option<Vec<Text<Origin>>>,
    #[serde(default)]
    rate: Option<NonZeroU32>,
    #[serde(default)]
    burst: Option<NonZeroU32>,
}

/// One `[[users]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UserEntry {
    name: String,
    password_hash: String,
    #[serde(default)]
    rights: Vec<Grant>,
    #[serde(default)]
    deny: Vec<Grant>,
    #[serde(default)]
    rate: Option<NonZeroU32>,
    #[serde(default)]
    burst: Option<NonZeroU32>,
}

/// One `[[issuers]]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IssuerEntry {
    #[serde(default)]
    iss: Option<String>,
    #[serde(default)]
    aud: OneOrMore,
    algorithms: Vec<AlgorithmName>,
    #[serde(default)]
    secret: Option<String>,
    #[serde(default)]
    secret_file: Option<PathBuf>,
    #[serde(default)]
    pem_file: Option<PathBuf>,
    #[serde(default)]
    jwks_file: Option<PathBuf>,
    #[serde(default)]
    jwks_url: Option<String>,
    #[serde(default)]
    jwks_ca_file: Option<PathBuf>,
    #[serde(default)]
    jwks_refresh: Option<Period>,
    #[serde(default)]
    jwks_cooldown: Option<Span>,
    #[serde(default)]
    leeway: Option<Span>,
    #[serde(default)]
    rights: Vec<Grant>,
    #[serde(default)]
    deny: Vec<Grant>,
    #[serde(default)]
    rate: Option<NonZeroU32>,
    #[serde(default)]
    burst: Option<NonZeroU32>,
}

/// `[client_certificates]`: what clients may do that show a certificate and nothing else.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ClientCertificates {
    users: bool,
    rights: Vec<Grant>,
    deny: Vec<Grant>,
}

impl ClientCertificates {
    fn is_empty(&self) -> bool {
        !self.users && self.rights.is_empty() && self.deny.is_empty()
    }

    fn value(&self) -> Option<Certificates> {
        let value = || {
            let mut certificates = Certificates::default();
            certificates.users = self.users;
            certificates.rights = template(&self.rights, &self.deny);
            certificates
        };
        (!self.is_empty()).then(value)
    }
}

/// One text, or a list.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
enum AlgorithmName {
    #[serde(rename = "HS256")]
    Hs256,
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl From<AlgorithmName> for Algorithm {
    fn from(name: AlgorithmName) -> Self {
        match name {
            AlgorithmName::Hs256 => Algorithm::Hs256,
            AlgorithmName::Rs256 => Algorithm::Rs256,
            AlgorithmName::Es256 => Algorithm::Es256,
            AlgorithmName::EdDsa => Algorithm::EdDsa,
        }
    }
}

/// `[auth]`: where browsers may carry a token, and what checking passwords may cost.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Auth {
    cookie: Option<Text<CookieName>>,
    access_token: bool,
    max_password_checks: Option<NonZeroUsize>,
    max_waiting_passwords: usize,
    remember_passwords: Span,
    max_remembered_passwords: usize,
}

impl Default for Auth {
    fn default() -> Self {
        let limits = PasswordLimits::default();
        Self {
            cookie: None,
            access_token: false,
            max_password_checks: None,
            max_waiting_passwords: limits.max_waiting,
            remember_passwords: Span(limits.remember),
            max_remembered_passwords: limits.max_remembered,
        }
    }
}

impl Auth {
    pub(super) fn token_places(&self) -> http_edge::TokenPlaces {
        let mut places = http_edge::TokenPlaces::default();
        places.cookie = self.cookie.as_ref().map(|name| name.0.0.clone());
        places.query = self.access_token;
        places
    }

    fn limits(&self) -> PasswordLimits {
        let mut limits = PasswordLimits::default();
        if let Some(checks) = self.max_password_checks {
            limits.max_concurrent = checks.get();
        }
        limits.max_waiting = self.max_waiting_passwords;
        limits.remember = self.remember_passwords.0;
        limits.max_remembered = self.max_remembered_passwords;
        limits
    }
}

/// All that is written about rights.
pub(super) struct Written<'a> {
    pub(super) anonymous: &'a Anonymous,
    pub(super) keys: &'a [KeyEntry],
    pub(super) users: &'a [UserEntry],
    pub(super) issuers: &'a [IssuerEntry],
    pub(super) auth: &'a Auth,
    pub(super) certificates: &'a ClientCertificates,
    pub(super) allowed_origins: Option<&'a [Text<AllowedOrigin>]>,
}

impl Written<'_> {
    /// Whether anything says who may do what.
    pub(super) fn says_anything(&self) -> bool {
        let Written { anonymous, keys, users, issuers, certificates, .. } = self;
        let nobody = keys.is_empty() && users.is_empty() && issuers.is_empty();
        !(anonymous.is_empty() && nobody && certificates.is_empty())
    }

    /// The origins of pages that may come at all: those of keys with a list of their own are among them.
    pub(super) fn origins(&self) -> Option<OriginPolicy> {
        if self.allows_any_origin() {
            return Some(OriginPolicy::Any);
        }
        let of_keys = self.keys.iter().filter_map(|key| key.origins.as_ref()).flatten();
        let origins: Vec<_> = self.listed_origins().chain(of_keys.map(|origin| &origin.0)).collect();
        let said = self.allowed_origins.is_some() || !origins.is_empty();
        said.then(|| OriginPolicy::List(origins.into_iter().map(|origin| origin.0.clone()).collect()))
    }

    fn allows_any_origin(&self) -> bool {
        self.allowed_origins.is_some_and(|origins| origins.iter().any(|one| one.0 == AllowedOrigin::Any))
    }

    fn listed_origins(&self) -> impl Iterator<Item = &Origin> {
        let listed = self.allowed_origins.unwrap_or_default().iter();
        listed.filter_map(|one| match &one.0 {
            AllowedOrigin::One(origin) => Some(origin),
            _ => None,
        })
    }

    /// Paths are taken from `folder`, where the configuration file is.
    ///
    /// # Errors
    /// What cannot be meant.
    pub(super) fn access(&self, folder: &Path) -> Result<Access, AccessError> {
        if self.allows_any_origin() && self.auth.token_places().cookie.is_some() {
            // Any page could then do in a user's name what it likes: a browser sends cookies along with a POST unasked.
            let message =
                "\"*\" cannot stand with `auth.cookie`: list the origins that may use it".to_owned();
            return Err(AccessError::new("server.allowed_origins", message));
        }
        if !self.says_anything() {
            return Ok(Access::open());
        }
        if let Some(pattern) = self.anonymous.with_user() {
            let message = format!(
                "{pattern:?} names a user, and anonymous clients have none",
                pattern = pattern.as_str()
            );
            return Err(AccessError::new("anonymous.allow", message));
        }
        let issuer = |(index, entry): (usize, &IssuerEntry)| {
            entry.issuer(folder).map_err(|(field, message)| {
                let dot = if field.is_empty() { "" } else { "." };
                AccessError::new(format!("issuers[{index}]{dot}{field}"), message)
            })
        };
        let mut access = Access::default();
        access.anonymous = self.anonymous.rights();
        access.keys = self.keys.iter().map(KeyEntry::key).collect();
        access.users = self.users.iter().map(UserEntry::user).collect();
        access.issuers = self.issuers.iter().enumerate().map(issuer).collect::<Result<_, _>>()?;
        access.certificates = self.certificates.value();
        access.allowed_origins = (!self.allows_any_origin())
            .then(|| self.listed_origins().map(|origin| origin.0.clone()).collect());
        access.passwords = self.auth.limits();
        Ok(access)
    }
}

fn texts<'a>(origins: impl IntoIterator<Item = &'a Text<Origin>>) -> Vec<String> {
    origins.into_iter().map(|origin| origin.0.0.clone()).collect()
}

/// As many at once as in a second, unless it is said.
pub(super) fn rate(per_second: Option<NonZeroU32>, burst: Option<NonZeroU32>) -> Option<Rate> {
    per_second.map(|per_second| Rate::new(per_second, burst.unwrap_or(per_second)))
}

impl KeyEntry {
    fn key(&self) -> Key {
        let mut key = Key::new(self.id.as_str(), self.hash.0, template(&self.rights, &self.deny));
        key.origins = self.origins.as_ref().map(texts);
        key.rate = rate(self.rate, self.burst);
        key
    }
}

impl UserEntry {
    fn user(&self) -> User {
        let mut user =
            User::new(self.name.as_str(), self.password_hash.clone(), template(&self.rights, &self.deny));
        user.rate = rate(self.rate, self.burst);
        user
    }
}

impl IssuerEntry {
    fn issuer(&self, folder: &Path) -> Result<Issuer, (&'static str, String)> {
        let default = Issuer::default();
        let mut issuer = Issuer::default();
        issuer.iss = self.iss.clone();
        issuer.aud = match &self.aud {
            OneOrMore::One(aud) => vec![aud.clone()],
            OneOrMore::More(aud) => aud.clone(),
        };
        issuer.algorithms = self.algorithms.iter().copied().map(Algorithm::from).collect();
        issuer.keys = self.keys(folder)?;
        issuer.rights = template(&self.rights, &self.deny);
        issuer.rate = rate(self.rate, self.burst);
        issuer.leeway = self.leeway.map_or(default.leeway, |span| span.0);
        issuer.jwks_refresh = self.jwks_refresh.map_or(default.jwks_refresh, |period| period.0);
        issuer.jwks_cooldown = self.jwks_cooldown.map_or(default.jwks_cooldown, |span| span.0);
        Ok(issuer)
    }

    fn keys(&self, folder: &Path) -> Result<KeySource, (&'static str, String)> {
        let secret_file = |path: &PathBuf| {
            let path = folder.join(path);
            let text = std::fs::read(&path)
                .map_err(|error| ("secret_file", format!("{}: {error}", path.display())))?;
            // An editor ends a file with a line break.
            Ok(KeySource::Secret(text.trim_ascii_end().to_vec()))
        };
        let url = |url: &String| KeySource::JwksUrl {
            url: url.clone(),
            ca_file: self.jwks_ca_file.as_ref().map(|path| folder.join(path)),
        };
        let sources = [
            self.secret.as_ref().map(|secret| Ok(KeySource::Secret(secret.clone().into_bytes()))),
            self.secret_file.as_ref().map(secret_file),
            self.pem_file.as_ref().map(|path| Ok(KeySource::PemFile(folder.join(path)))),
            self.jwks_file.as_ref().map(|path| Ok(KeySource::JwksFile(folder.join(path)))),
            self.jwks_url.as_ref().map(|address| Ok(url(address))),
        ];
        let mut sources = sources.into_iter().flatten();
        match (sources.next(), sources.next()) {
            (Some(source), None) => source,
            _ => {
                let why = "one of `secret`, `secret_file`, `pem_file`, `jwks_file` and `jwks_url` is needed";
                Err(("", why.to_owned()))
            }
        }
    }
}
