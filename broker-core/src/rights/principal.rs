//! Who acts.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Action, Rights};
use crate::channel::Channel;
use crate::filter::Filter;

/// Who a connection or request acts as, and with which rights. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Principal(Arc<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    source: Source,
    user: Option<Arc<str>>,
    rights: Arc<Rights>,
    expires_at_ms: Option<u64>,
    throttle: Option<Arc<dyn Throttle>>,
    welcome: Option<Arc<Welcome>>,
}

/// What a [`Policy`](super::Policy) that lets a client in wants beside: its front sees to it before the client hears
/// that it is connected.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Welcome {
    /// What the client is subscribed to without having asked, and without a right to it.
    pub subscribe: Vec<Filter>,
    /// JSON text for the client, where its protocol has a place: Bayeux `ext.hook` of the handshake's reply, the MQTT 5
    /// user property `hook`, the first event of an SSE stream, `hook`.
    pub reply: Option<Bytes>,
    /// What the policy knows this connection by, when it is asked about it again.
    pub note: Option<Arc<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Welcome").field("subscribe", &self.subscribe).finish_non_exhaustive()
    }
}

/// What vouches for a principal, so that an authenticator whose configuration changed can tell whether it still does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Source {
    /// The kind of credentials.
    pub kind: SourceKind,
    /// Which of that kind: the key's id, the issuer, the user's name. Empty for anonymous.
    pub name: Arc<str>,
    /// A fingerprint of what the credentials were checked with (secret, hash, issuer's keys): with another one they
    /// would have to be shown again.
    pub trust: u64,
    /// A fingerprint of all that the answer was made from (secret, rights, origins): another one is another answer.
    pub version: u64,
}

/// The kind of credentials that were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SourceKind {
    /// None were presented, to an authenticator that would have looked at them.
    #[default]
    Anonymous,
    /// A key.
    Key,
    /// A signed token.
    Token,
    /// A user name with its password.
    Password,
    /// A certificate that the client has shown in the handshake of TLS.
    Certificate,
    /// Something that an authenticator of the embedding service knows.
    Other,
}

/// How often a principal may act.
pub trait Throttle: Send + Sync + fmt::Debug {
    /// Takes `count` actions (messages, requests) out of what is allowed now.
    ///
    /// # Errors
    /// How long to wait until they would be allowed; nothing was taken.
    fn admit(&self, count: u32) -> Result<(), Duration>;
}

impl Principal {
    /// Nobody in particular: whoever comes is served like this, and credentials would change nothing. Where they would,
    /// the principal is [`from_source`](Self::from_source) of [`SourceKind::Anonymous`].
    pub fn anonymous(rights: Rights) -> Self {
        Self::new(None, Arc::new(rights))
    }

    /// A named user.
    pub fn user_with(user: &str, rights: Rights) -> Self {
        Self::new(Some(user), Arc::new(rights))
    }

    /// A user, or nobody in particular, with rights that others may share.
    pub fn new(user: Option<&str>, rights: Arc<Rights>) -> Self {
        Self(Arc::new(Inner {
            source: Source { kind: SourceKind::Other, ..Source::default() },
            user: user.map(Arc::from),
            rights,
            expires_at_ms: None,
            throttle: None,
            welcome: None,
        }))
    }

    /// The same, until a time in milliseconds since 1970; fronts close the connection then.
    #[must_use]
    pub fn expiring_at(mut self, expires_at_ms: u64) -> Self {
        Arc::make_mut(&mut self.0).expires_at_ms = Some(expires_at_ms);
        self
    }

    /// The same, vouched for by `source`.
    #[must_use]
    pub fn from_source(mut self, source: Source) -> Self {
        Arc::make_mut(&mut self.0).source = source;
        self
    }

    /// The same, acting no more often than `throttle` allows.
    #[must_use]
    pub fn throttled(mut self, throttle: Arc<dyn Throttle>) -> Self {
        Arc::make_mut(&mut self.0).throttle = Some(throttle);
        self
    }

    /// The same user with other rights.
    #[must_use]
    pub fn with_rights(mut self, rights: Rights) -> Self {
        Arc::make_mut(&mut self.0).rights = Arc::new(rights);
        self
    }

    /// The same rights as another user.
    #[must_use]
    pub fn as_user(mut self, user: &str) -> Self {
        Arc::make_mut(&mut self.0).user = Some(user.into());
        self
    }

    /// The same, welcomed so.
    #[must_use]
    pub fn welcomed(mut self, welcome: Welcome) -> Self {
        Arc::make_mut(&mut self.0).welcome = Some(Arc::new(welcome));
        self
    }

    /// What a policy wants for it, if one has said anything.
    pub fn welcome(&self) -> Option<&Welcome> {
        self.0.welcome.as_deref()
    }

    /// What vouches for it.
    pub fn source(&self) -> &Source {
        &self.0.source
    }

    /// Whether no credentials were presented where they would have been looked at: what such a client has no right to
    /// it may have with some, and HTTP says so by another status.
    pub fn is_unidentified(&self) -> bool {
        self.0.source.kind == SourceKind::Anonymous
    }

    /// The user's name; `None` for anonymous.
    pub fn user(&self) -> Option<&str> {
        self.0.user.as_deref()
    }

    /// When the credentials end, in milliseconds since 1970; `None` = never.
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.0.expires_at_ms
    }

    /// What it may do.
    pub fn rights(&self) -> &Rights {
        &self.0.rights
    }

    /// See [`Rights::allows`].
    pub fn allows(&self, action: Action, channel: &Channel) -> bool {
        self.0.rights.allows(action, channel)
    }

    /// See [`Rights::allows_filter`].
    pub fn allows_filter(&self, action: Action, filter: &Filter) -> bool {
        self.0.rights.allows_filter(action, filter)
    }

    /// See [`Rights::allows_all_of`].
    pub fn allows_all_of(&self, action: Action, filter: &Filter) -> bool {
        self.0.rights.allows_all_of(action, filter)
    }

    /// Takes `count` actions out of its rate. Fronts ask once per message or request.
    ///
    /// # Errors
    /// How long to wait: the rate is used up.
    pub fn admit(&self, count: u32) -> Result<(), Duration> {
        self.0.throttle.as_ref().map_or(Ok(()), |throttle| throttle.admit(count))
    }
}
