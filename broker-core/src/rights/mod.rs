//! Who may do what. Fronts extract credentials and ask; they never decide.

mod authenticator;
mod network;
mod pattern;
mod policy;
mod principal;
mod sight;

pub use authenticator::{
    AllowAll, Anonymous, AuthError, Authenticated, Authenticator, Credentials, RequestHead,
};
pub use network::Network;
pub use pattern::{Pattern, RightsTemplate};
pub use policy::{Client, Denied, Governed, Policy};
pub use principal::{Principal, Source, SourceKind, Throttle, Welcome};
pub(crate) use sight::Sight;

use crate::channel::{Channel, DEAD};
use crate::filter::Filter;

/// What can be allowed or denied on a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
    /// Have the broker send a request to somebody else, whose answer is a message on the channel.
    Request,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 6] = [
        Action::Publish,
        Action::Subscribe,
        Action::History,
        Action::Presence,
        Action::Manage,
        Action::Request,
    ];

    /// Whether it shows messages.
    fn reads(self) -> bool {
        matches!(self, Action::Subscribe | Action::History)
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }

    fn bits(actions: impl IntoIterator<Item = Action>) -> u8 {
        actions.into_iter().fold(0, |bits, action| bits | action.bit())
    }

    /// The name that configurations and tokens use: `publish`, `subscribe`, `history`, `presence`, `manage`,
    /// `request`.
    pub fn name(self) -> &'static str {
        match self {
            Action::Publish => "publish",
            Action::Subscribe => "subscribe",
            Action::History => "history",
            Action::Presence => "presence",
            Action::Manage => "manage",
            Action::Request => "request",
        }
    }

    /// The action of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// One line of a principal's rights: actions on the channels of a filter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    actions: u8,
    filter: Filter,
}

impl Rule {
    /// These actions on what `filter` matches.
    pub fn new(actions: impl IntoIterator<Item = Action>, filter: Filter) -> Self {
        Self { actions: Action::bits(actions), filter }
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
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Rights {
    everything: bool,
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

impl Rights {
    /// Everything on every channel, `$SYS` included (which nobody publishes to); denying rules can still be added.
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

    /// Whether a client may ask a [`Service`](crate::Service) by publishing on one of its channels: the rules are those of
    /// publishing, on a channel below `$aws/`. A rule on every channel is none on those: it does not match them.
    pub fn allows_asking(&self, channel: &Channel) -> bool {
        channel.namespace() == "$aws" && self.grants(Action::Publish, channel)
    }

    /// Whether the rules grant `action` on one channel, whoever publishes there. What is below `$dead/` is read by who may
    /// manage every channel, as it may be of any.
    pub fn grants(&self, action: Action, channel: &Channel) -> bool {
        if action.reads() && channel.is_reserved() && channel.namespace() == DEAD {
            return self.manages_everything();
        }
        let grants = |rule: &Rule| rule.is_about(action) && rule.filter.matches(channel);
        (self.everything || self.allow.iter().any(grants)) && !self.denies(action, channel)
    }

    /// Whether `action` on one channel is allowed. To publish where only the broker does
    /// ([`Channel::is_the_brokers_own`]) never is: what stands there could be forged.
    pub fn allows(&self, action: Action, channel: &Channel) -> bool {
        if action == Action::Publish && channel.is_the_brokers_own() {
            return false;
        }
        self.grants(action, channel)
    }

    /// Whether `action` on all channels of `filter` is allowed, denying rules that only touch a part of it aside: those
    /// hold message by message (see [`Broker::attach_as`](crate::Broker::attach_as)).
    pub fn allows_filter(&self, action: Action, filter: &Filter) -> bool {
        if action.reads() && filter.namespace() == Some(DEAD) {
            return self.manages_everything();
        }
        let covers = |rule: &Rule| rule.is_about(action) && rule.filter.covers(filter);
        (self.everything || self.allow.iter().any(covers)) && !self.deny.iter().any(covers)
    }

    /// Whether `action` is allowed on all channels of `filter` without exception: no denying rule touches any of them.
    /// For what cannot be done message by message.
    pub fn allows_all_of(&self, action: Action, filter: &Filter) -> bool {
        self.allows_filter(action, filter) && !self.denies_some_of(action, filter)
    }

    /// A channel that `action` is allowed on, for who is to be shown one: `demo` or, where that is not allowed, what a
    /// rule says, with `demo` in the place of a wildcard. `None` where no rule is so simple.
    pub fn example(&self, action: Action) -> Option<Channel> {
        const NAME: &str = "demo";
        let named = |rule: &Rule| {
            let text = rule.filter.to_string();
            let segments =
                text.split('/').map(|part| if matches!(part, "*" | "**" | "#") { NAME } else { part });
            segments.collect::<Vec<_>>().join("/")
        };
        let rules = self.allow.iter().filter(|rule| rule.is_about(action)).map(named);
        let mut names = std::iter::once(NAME.to_owned()).chain(rules);
        names.find_map(|name| Channel::parse(&name).ok().filter(|channel| self.allows(action, channel)))
    }

    fn manages_everything(&self) -> bool {
        Filter::parse("**").is_ok_and(|all| self.allows_all_of(Action::Manage, &all))
    }

    /// Whether a denying rule says no to `action` on one channel.
    fn denies(&self, action: Action, channel: &Channel) -> bool {
        self.deny.iter().any(|rule| rule.is_about(action) && rule.filter.matches(channel))
    }

    /// Whether a denying rule touches any channel of `filter`.
    fn denies_some_of(&self, action: Action, filter: &Filter) -> bool {
        self.deny.iter().any(|rule| rule.is_about(action) && rule.filter.overlaps(filter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    #[test]
    fn an_example_is_a_channel_that_is_allowed() {
        let subscribe = |allowed: &str| Rule::new([Action::Subscribe], filter(allowed));
        let example = |rights: &Rights| rights.example(Action::Subscribe).map(|channel| channel.to_string());
        let rights = Rights::none().allow(subscribe("public/*/x/**"));
        assert_eq!(example(&rights).as_deref(), Some("public/demo/x/demo"));
        assert_eq!(rights.example(Action::Publish), None);
        assert_eq!(example(&Rights::all()).as_deref(), Some("demo"));
        assert_eq!(example(&Rights::none()), None);
        let rights = Rights::all().allow(subscribe("b")).deny(subscribe("demo"));
        assert_eq!(example(&rights).as_deref(), Some("b"));
        assert_eq!(example(&rights.deny(subscribe("**"))), None);
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
        for (text, expected) in
            [("a/#", false), ("a/*", false), ("a/*/x", false), ("a/b/#", true), ("a", true)]
        {
            assert_eq!(rights.allows_all_of(Action::Subscribe, &filter(text)), expected, "{text}");
        }
        assert!(Rights::all().allows_filter(Action::Subscribe, &filter("$SYS/#")));
        for (text, expected) in
            [("$SYS/x", false), ("$aws", false), ("$aws/x", false), ("$awsx", true), ("aws", true)]
        {
            let channel = Channel::parse(text).unwrap();
            assert_eq!(Rights::all().allows(Action::Publish, &channel), expected, "{text}");
            assert!(Rights::all().allows(Action::Subscribe, &channel), "{text}");
        }
        let (dead, below) = (Channel::parse("$dead/hook").unwrap(), filter("$dead/#"));
        let reader = Rights::none().allow(Rule::new([Action::Subscribe, Action::History], below.clone()));
        let manager = Rights::none().allow(Rule::new([Action::Manage], filter("**")));
        for (rights, reads) in [(Rights::all(), true), (reader, false), (manager, true)] {
            for action in [Action::Subscribe, Action::History] {
                assert_eq!(rights.allows(action, &dead), reads);
                assert_eq!(rights.allows_filter(action, &below), reads);
            }
            assert!(!rights.allows(Action::Publish, &dead), "only the broker says what died");
        }
        assert!(Rights::all().allows_all_of(Action::Manage, &filter("**")));
        let but_one = Rights::all().deny(Rule::new([Action::Manage], filter("a/b")));
        assert!(!but_one.allows_all_of(Action::Manage, &filter("**")));
        assert!(but_one.allows_all_of(Action::Publish, &filter("**")), "another action");
    }
}
