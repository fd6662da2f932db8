//! What an embedding service decides beside the rights.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{AuthError, Authenticated, Authenticator, Credentials, Principal};
use crate::answer::Answer;
use crate::filter::Filter;
use crate::key::SubscriberKey;
use crate::message::Publish;

/// Who asks for something.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Client<'a> {
    /// As whom.
    pub principal: &'a Principal,
    /// `mqtt`, `bayeux`, `sse`, `http`, or the name of a front of your own.
    pub protocol: &'static str,
    /// What it calls itself: the MQTT client identifier.
    pub client_id: Option<&'a str>,
    /// Its name in the core; `None` for a request that stands alone.
    pub key: Option<SubscriberKey>,
    /// Where it comes from, as far as that is known.
    pub remote: Option<IpAddr>,
}

impl<'a> Client<'a> {
    /// Of whom no more is known.
    pub fn new(principal: &'a Principal, protocol: &'static str) -> Self {
        Self { principal, protocol, client_id: None, key: None, remote: None }
    }
}

/// Allows, denies or rewrites what clients ask for, whatever they speak: a service that wants to see each message, a
/// gateway that asks a function. Asked after the rights, which have then allowed it; given to
/// [`Broker::set_policy`](crate::Broker::set_policy).
///
/// An answer may come later ([`Answer::later`]). Meanwhile nothing more of that client is done, so that its order
/// stays: an MQTT connection is not read, a request or a batch waits. Other clients wait for nobody. What is asked
/// often should be answered with [`Answer::now`]. Nobody here bounds how long it takes: an answer that never comes
/// holds its client, and the place of its connection, for ever.
///
/// What the embedding service itself publishes with [`Broker::publish`](crate::Broker::publish) is not asked about, nor
/// are wills, the messages of `$SYS`, and what an operator does through the connections.
pub trait Policy: Send + Sync + 'static {
    /// Whether `principal`, made of these credentials, is let in, and as whom: over HTTP asked for each request. Not
    /// asked again when an MQTT client renews its credentials on the same connection (AUTH).
    fn connect<'a>(
        &'a self,
        credentials: &Credentials<'a>,
        principal: Principal,
    ) -> Answer<'a, Result<Principal, AuthError>> {
        let _ = credentials;
        Answer::now(Ok(principal))
    }

    /// Whether the client may subscribe. Not to something else instead: no protocol can tell its client so, and the
    /// client unsubscribes from what it asked for.
    fn subscribe(&self, client: &Client<'_>, filter: &Filter) -> Answer<'static, Result<(), Denied>> {
        let _ = (client, filter);
        Answer::now(Ok(()))
    }

    /// Whether the client may publish this, or what instead.
    fn publish(&self, client: &Client<'_>, publish: Publish) -> Answer<'static, Result<Publish, Denied>> {
        let _ = client;
        Answer::now(Ok(publish))
    }
}

/// A policy's no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// It may not be. The text is told to the client where its protocol has a place for it.
    #[error("{0}")]
    Forbidden(Cow<'static, str>),
    /// Nobody can say now: whoever would decide does not answer. The same may be asked again.
    #[error("the decision cannot be had now, try again in {} ms", retry_after.as_millis())]
    Unavailable {
        /// When to try again.
        retry_after: Duration,
    },
}

/// An authenticator whose principals a policy has the last word on.
#[derive(Clone)]
pub struct Governed {
    authenticator: Arc<dyn Authenticator>,
    policy: Arc<dyn Policy>,
}

impl Governed {
    /// `authenticator`, with [`Policy::connect`] of `policy` asked after it.
    pub fn new(authenticator: Arc<dyn Authenticator>, policy: Arc<dyn Policy>) -> Self {
        Self { authenticator, policy }
    }
}

impl Authenticator for Governed {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Authenticated<'a> {
        let answer = self.authenticator.authenticate(credentials);
        match answer.if_now() {
            Ok(Ok(principal)) => self.policy.connect(&credentials, principal),
            Ok(Err(error)) => Answer::now(Err(error)),
            Err(later) => Answer::later(async move {
                let principal = later.await?;
                self.policy.connect(&credentials, principal).await
            }),
        }
    }

    fn still_holds(&self, principal: &Principal) -> bool {
        self.authenticator.still_holds(principal)
    }

    fn renewed(&self, principal: &Principal) -> Option<Principal> {
        self.authenticator.renewed(principal)
    }
}

impl fmt::Debug for Governed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Governed").finish_non_exhaustive()
    }
}
