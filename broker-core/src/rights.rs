//! Who may do what. Fronts extract credentials and ask; they never decide.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use crate::channel::Channel;
use crate::filter::Filter;

/// What can be allowed or denied on a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send messages.
    Publish,
    /// Receive messages.
    Subscribe,
    /// Read the log and retained messages.
    History,
    /// See who is there.
    Presence,
    /// Close connections, change others' subscriptions, delete retained messages.
    Manage,
}

impl Action {
    const ALL: [Action; 5] =
        [Action::Publish, Action::Subscribe, Action::History, Action::Presence, Action::Manage];

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// One line of a principal's rights: actions on the channels of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    actions: u8,
    filter: Filter,
}

impl Rule {
    /// These actions on what `filter` matches.
    pub fn new(actions: impl IntoIterator<Item = Action>, filter: Filter) -> Self {
        Self { actions: actions.into_iter().fold(0, |bits, action| bits | action.bit()), filter }
    }

    /// Every action on what `filter` matches.
    pub fn all(filter: Filter) -> Self {
        Self::new(Action::ALL, filter)
    }

    fn is_about(&self, action: Action) -> bool {
        self.actions & action.bit() != 0
    }
}

/// What is allowed, less what is denied. Nothing is allowed that no rule allows; any denying rule wins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights {
    everything: bool,
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

impl Rights {
    /// Everything on every channel, `$SYS` included; denying rules can still be added.
    pub fn all() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Nothing; the same as the default.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds an allowing rule.
    #[must_use]
    pub fn allow(mut self, rule: Rule) -> Self {
        self.allow.push(rule);
        self
    }

    /// Adds a denying rule.
    #[must_use]
    pub fn deny(mut self, rule: Rule) -> Self {
        self.deny.push(rule);
        self
    }

    /// Whether `action` on one channel is allowed.
    pub fn allows(&self, action: Action, channel: &Channel) -> bool {
        let hit = |rule: &Rule| rule.is_about(action) && rule.filter.matches(channel);
        (self.everything || self.allow.iter().any(hit)) && !self.deny.iter().any(hit)
    }

    /// Whether `action` on all channels of `filter` is allowed, denying rules that only touch a part of it aside: those
    /// hold message by message (see [`Broker::attach_as`](crate::Broker::attach_as)).
    pub fn allows_filter(&self, action: Action, filter: &Filter) -> bool {
        let covers = |rule: &Rule| rule.is_about(action) && rule.filter.covers(filter);
        (self.everything || self.allow.iter().any(covers)) && !self.deny.iter().any(covers)
    }

    /// Whether some denying rule could touch a subscription at all.
    fn denies_some(&self, action: Action) -> bool {
        self.deny.iter().any(|rule| rule.is_about(action))
    }
}

/// Who a connection or request acts as, and with which rights. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Principal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    user: Option<Box<str>>,
    rights: Rights,
    expires_at_ms: Option<u64>,
}

impl Principal {
    /// Nobody in particular.
    pub fn anonymous(rights: Rights) -> Self {
        Self(Arc::new(Inner { user: None, rights, expires_at_ms: None }))
    }

    /// A named user.
    pub fn user_with(user: &str, rights: Rights) -> Self {
        Self(Arc::new(Inner { user: Some(user.into()), rights, expires_at_ms: None }))
    }

    /// The same, until a time in milliseconds since 1970; fronts close the connection then.
    #[must_use]
    pub fn expiring_at(self, expires_at_ms: u64) -> Self {
        let (user, rights) = (self.0.user.clone(), self.0.rights.clone());
        Self(Arc::new(Inner { user, rights, expires_at_ms: Some(expires_at_ms) }))
    }

    /// The user's name; `None` for anonymous.
    pub fn user(&self) -> Option<&str> {
        self.0.user.as_deref()
    }

    /// When the credentials end, in milliseconds since 1970; `None` = never.
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.0.expires_at_ms
    }

    /// See [`Rights::allows`].
    pub fn allows(&self, action: Action, channel: &Channel) -> bool {
        self.0.rights.allows(action, channel)
    }

    /// See [`Rights::allows_filter`].
    pub fn allows_filter(&self, action: Action, filter: &Filter) -> bool {
        self.0.rights.allows_filter(action, filter)
    }

    /// Whether deliveries must be checked one by one.
    pub(crate) fn needs_delivery_check(&self) -> bool {
        self.0.rights.denies_some(Action::Subscribe)
    }
}

/// What a peer offered to show who it is. A front fills in what its protocol has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// User name (MQTT CONNECT, HTTP Basic).
    pub user: Option<&'a str>,
    /// Its password; bytes, because MQTT passwords are.
    pub password: Option<&'a [u8]>,
    /// A bearer token or API key.
    pub token: Option<&'a str>,
    /// MQTT client identifier.
    pub client_id: Option<&'a str>,
    /// Where the connection comes from.
    pub remote: Option<SocketAddr>,
    /// `mqtt`, `bayeux`, `sse` or `http`.
    pub protocol: &'static str,
}

/// Why nobody could be made of the credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Credentials are needed and there were none.
    #[error("credentials are required")]
    Required,
    /// The credentials are wrong, and how.
    #[error("invalid credentials: {0}")]
    Invalid(String),
    /// They could not be checked now.
    #[error("credentials cannot be checked: {0}")]
    Unavailable(String),
}

/// What an [`Authenticator`] answers with.
pub type Authenticated<'a> = Pin<Box<dyn Future<Output = Result<Principal, AuthError>> + Send + 'a>>;

/// Turns credentials into a [`Principal`]; asked once per connection, session or request.
pub trait Authenticator: Send + Sync + 'static {
    /// Who is this?
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Authenticated<'a>;
}

/// Gives everybody all rights: what a broker on loopback without configuration does.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

impl Authenticator for AllowAll {
    fn authenticate<'a>(&'a self, _: Credentials<'a>) -> Authenticated<'a> {
        static EVERYBODY: LazyLock<Principal> = LazyLock::new(|| Principal::anonymous(Rights::all()));
        Box::pin(async { Ok(EVERYBODY.clone()) })
    }
}

/// Gives everybody the same rights, asking nothing.
#[derive(Debug, Clone)]
pub struct Anonymous(pub Principal);

impl Authenticator for Anonymous {
    fn authenticate<'a>(&'a self, _: Credentials<'a>) -> Authenticated<'a> {
        let principal = self.0.clone();
        Box::pin(async { Ok(principal) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    #[test]
    fn a_denying_rule_wins_and_nothing_is_allowed_by_default() {
        let rights = Rights::none()
            .allow(Rule::new([Action::Subscribe], filter("a/#")))
            .deny(Rule::new([Action::Subscribe, Action::Publish], filter("a/secret/#")));
        let allows = |text: &str| rights.allows(Action::Subscribe, &Channel::parse(text).unwrap());
        assert!(allows("a") && allows("a/b"));
        assert!(!allows("a/secret") && !allows("a/secret/x") && !allows("b"));
        assert!(!rights.allows(Action::Publish, &Channel::parse("a").unwrap()));
        for (text, expected) in
            [("a/#", true), ("a/*", true), ("#", false), ("a/secret/*", false), ("a/secret/#", false)]
        {
            assert_eq!(rights.allows_filter(Action::Subscribe, &filter(text)), expected, "{text}");
        }
        assert!(Rights::all().allows_filter(Action::Subscribe, &filter("$SYS/#")));
    }
}
