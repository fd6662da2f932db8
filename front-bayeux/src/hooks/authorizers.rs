//! CometD's authorizers: rules of the embedding service's own, by channel, on top of a policy.

use broker_core::{Channel, Credentials, Filter, Principal};

use crate::error::Denial;
use crate::hooks::policy::{Handshaken, Policy};

/// What an authorizer is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// A channel that does not exist yet.
    Create,
    /// A subscription.
    Subscribe,
    /// A message.
    Publish,
}

/// What an authorizer says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Allowed, unless another one denies.
    Grant,
    /// No opinion.
    Ignore,
    /// Refused, whatever the others say.
    Deny(Denial),
}

type Rule = Box<dyn Fn(Operation, &Principal, &Filter) -> Verdict + Send + Sync>;

/// A policy with authorizers: the inner policy is asked first; then, where authorizers cover the
/// channel, none may deny and one must grant. Where there are none everything is granted. They are
/// never asked about handshakes.
pub struct Authorizers<P> {
    policy: P,
    rules: Vec<(Filter, Rule)>,
}

impl<P: Policy> Authorizers<P> {
    /// No authorizers yet.
    pub fn new(policy: P) -> Self {
        Self { policy, rules: Vec::new() }
    }

    /// Adds an authorizer for the channels of `filter`. It is given the channel, or what is subscribed
    /// to, as a filter.
    #[must_use]
    pub fn with(
        mut self,
        filter: Filter,
        rule: impl Fn(Operation, &Principal, &Filter) -> Verdict + Send + Sync + 'static,
    ) -> Self {
        self.rules.push((filter, Box::new(rule)));
        self
    }

    fn ask(&self, operation: Operation, principal: &Principal, target: &Filter) -> Result<(), Denial> {
        let (mut asked, mut granted) = (false, false);
        for (filter, rule) in &self.rules {
            if filter.covers(target) {
                asked = true;
                match rule(operation, principal, target) {
                    Verdict::Grant => granted = true,
                    Verdict::Ignore => {}
                    Verdict::Deny(denial) => return Err(denial),
                }
            }
        }
        if asked && !granted { Err(Denial::NotGranted) } else { Ok(()) }
    }
}

impl<P: Policy> Policy for Authorizers<P> {
    fn can_handshake<'a>(&'a self, credentials: Credentials<'a>, ext: Option<&'a str>) -> Handshaken<'a> {
        self.policy.can_handshake(credentials, ext)
    }

    fn can_create(&self, principal: &Principal, channel: &Channel) -> Result<(), Denial> {
        self.policy.can_create(principal, channel)?;
        self.ask(Operation::Create, principal, &Filter::literal(channel.clone()))
    }

    fn can_subscribe(&self, principal: &Principal, filter: &Filter) -> Result<(), Denial> {
        self.policy.can_subscribe(principal, filter)?;
        self.ask(Operation::Subscribe, principal, filter)
    }

    fn can_publish(&self, principal: &Principal, channel: &Channel) -> Result<(), Denial> {
        self.policy.can_publish(principal, channel)?;
        self.ask(Operation::Publish, principal, &Filter::literal(channel.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use broker_core::{AllowAll, Rights};

    use super::*;
    use crate::hooks::policy::ByRights;

    #[test]
    fn one_must_grant_and_none_may_deny() {
        let filter = |text: &str| Filter::parse(text).unwrap();
        let policy = Authorizers::new(ByRights(Arc::new(AllowAll)))
            .with(filter("chat/**"), |operation, _, _| match operation {
                Operation::Subscribe => Verdict::Grant,
                _ => Verdict::Ignore,
            })
            .with(filter("chat/secret"), |_, _, _| Verdict::Deny(Denial::Policy));
        let nobody = Principal::anonymous(Rights::all());
        let channel = |text: &str| Channel::parse(text).unwrap();
        assert_eq!(policy.can_subscribe(&nobody, &filter("chat/a")), Ok(()));
        assert_eq!(policy.can_subscribe(&nobody, &filter("chat/**")), Ok(()));
        assert_eq!(policy.can_subscribe(&nobody, &filter("chat/secret")), Err(Denial::Policy));
        assert_eq!(policy.can_publish(&nobody, &channel("chat/a")), Err(Denial::NotGranted));
        assert_eq!(policy.can_publish(&nobody, &channel("news")), Ok(()));
    }
}
