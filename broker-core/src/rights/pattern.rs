//! Rules with a place for the user: what a configuration or a token says once for everybody.

use super::{Action, Rights, Rule};
use crate::filter::{Filter, FilterError, Segment};

/// The place that a user's name takes.
const USER: &str = "{user}";

/// A filter in the [text form](Filter#text-form) in which `{user}` stands for the principal's user: `orders/{user}/**`,
/// `inbox-{user}`.
///
/// A name fills the place as text and never as anything else: it cannot bring another segment, a wildcard or one of the
/// broker's own `$` channels. A name that would is no name for this pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Box<str>,
    /// The filter where no user is named.
    fixed: Option<Filter>,
}

impl Pattern {
    /// Parses the text form.
    ///
    /// # Errors
    /// The text is a filter for no user, whatever the name.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let has_user = text.contains(USER);
        let filter = Filter::parse(&text.replace(USER, "user"))?;
        Ok(Self { text: text.into(), fixed: (!has_user).then_some(filter) })
    }

    /// Whether `{user}` stands in it.
    pub fn has_user(&self) -> bool {
        self.fixed.is_none()
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The filter for this user; `None` if it has a place for a user and this one cannot fill it: nobody, an empty
    /// name, one with `/` or NUL, one that makes a wildcard of its segment (`*`, `**`, `#`, `+`), or a `$` of the first
    /// one.
    pub fn for_user(&self, user: Option<&str>) -> Option<Filter> {
        if let Some(fixed) = &self.fixed {
            return Some(fixed.clone());
        }
        let user = user.filter(|user| !user.is_empty() && !user.contains(['/', '\0']))?;
        self.fill(|segment| {
            let text = segment.replace(USER, user);
            (!is_wildcard(&text) && text != "+").then(|| Segment::Literal(text.into()))
        })
        .filter(|filter| !self.becomes_reserved(filter))
    }

    /// The filter for every user at once, with one segment of any text in place of the user's.
    pub fn for_any_user(&self) -> Option<Filter> {
        self.fixed.clone().or_else(|| self.fill(|_| Some(Segment::One)))
    }

    fn fill(&self, mut with: impl FnMut(&str) -> Option<Segment>) -> Option<Filter> {
        let segments = self.text.split('/').map(|segment| match segment {
            "*" => Some(Segment::One),
            "**" => Some(Segment::RestOneOrMore),
            "#" => Some(Segment::RestZeroOrMore),
            named if named.contains(USER) => with(named),
            text => Some(Segment::Literal(text.into())),
        });
        // Only a name that makes the filter too long can fail here.
        Filter::new(segments.collect::<Option<Vec<_>>>()?).ok()
    }

    fn becomes_reserved(&self, filter: &Filter) -> bool {
        !self.text.starts_with('$') && filter.to_string().starts_with('$')
    }
}

fn is_wildcard(text: &str) -> bool {
    matches!(text, "*" | "**" | "#")
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for Pattern {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        Self::parse(text)
    }
}

/// Rights for whoever comes: rules with patterns, made into [`Rights`] for one user.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RightsTemplate {
    allow: Vec<(u8, Pattern)>,
    deny: Vec<(u8, Pattern)>,
}

impl RightsTemplate {
    /// Adds what is allowed.
    #[must_use]
    pub fn allow(mut self, actions: impl IntoIterator<Item = Action>, pattern: Pattern) -> Self {
        self.allow.push((Action::bits(actions), pattern));
        self
    }

    /// Adds what is denied, whatever allows it.
    #[must_use]
    pub fn deny(mut self, actions: impl IntoIterator<Item = Action>, pattern: Pattern) -> Self {
        self.deny.push((Action::bits(actions), pattern));
        self
    }

    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }

    /// Whether the rights differ from user to user.
    pub fn has_user(&self) -> bool {
        self.allow.iter().chain(&self.deny).any(|(_, pattern)| pattern.has_user())
    }

    /// The rights of one user. Where a user cannot fill a pattern, an allowing rule is left out and a denying one holds
    /// for every user's place: a name never widens what it may do.
    pub fn for_user(&self, user: Option<&str>) -> Rights {
        let allow = self.allow.iter().filter_map(|(actions, pattern)| {
            pattern.for_user(user).map(|filter| Rule { actions: *actions, filter })
        });
        let deny = self.deny.iter().filter_map(|(actions, pattern)| {
            let filter = pattern.for_user(user).or_else(|| pattern.for_any_user())?;
            Some(Rule { actions: *actions, filter })
        });
        Rights { everything: false, allow: allow.collect(), deny: deny.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::Channel;

    #[test]
    fn a_user_fills_its_place_as_text_or_not_at_all() {
        for (pattern, user, expected) in [
            ("orders/{user}/**", Some("ann"), Some("orders/ann/**")),
            ("orders/{user}/#", Some("a+b@example.org"), Some("orders/a+b@example.org/#")),
            ("inbox-{user}", Some("ann"), Some("inbox-ann")),
            ("{user}/{user}", Some("ann"), Some("ann/ann")),
            ("{user}/**", Some("{user}"), Some("{user}/**")),
            ("public/*", None, Some("public/*")),
            ("public/*", Some("x/y"), Some("public/*")),
            ("$SYS/{user}", Some("ann"), Some("$SYS/ann")),
            ("orders/{user}/**", None, None),
            ("orders/{user}/**", Some(""), None),
            ("orders/{user}/**", Some("a/b"), None),
            ("orders/{user}/**", Some("a\0b"), None),
            ("orders/{user}/**", Some("*"), None),
            ("orders/{user}/**", Some("**"), None),
            ("orders/{user}", Some("#"), None),
            ("orders/{user}", Some("+"), None),
            ("*{user}/x", Some("*"), None),
            ("*{user}/x", Some("ann"), Some("*ann/x")),
            ("{user}/**", Some("$SYS"), None),
            ("{user}{user}", Some("$"), None),
        ] {
            let filter = Pattern::parse(pattern).unwrap().for_user(user);
            assert_eq!(filter.map(|f| f.to_string()).as_deref(), expected, "{pattern} {user:?}");
        }
        let long = "x".repeat(Channel::MAX_BYTES);
        assert_eq!(Pattern::parse("a/{user}").unwrap().for_user(Some(&long)), None);
    }

    #[test]
    fn no_name_widens_a_right() {
        let own =
            RightsTemplate::default().allow([Action::Subscribe], Pattern::parse("orders/{user}/**").unwrap());
        let filter = |text| Filter::parse(text).unwrap();
        for user in ["ann", "*", "#", "+", "**", "a/b", "ann/*", "../bob", "", "\0", "{user}", "$SYS"] {
            let rights = own.for_user(Some(user));
            for other in ["orders/bob/x", "orders/#", "orders/**", "orders/*/x", "orders/+/x", "#", "bob/x"] {
                let reached = rights.allows_filter(Action::Subscribe, &filter(other))
                    || rights.allows(Action::Subscribe, &Channel::parse(other).unwrap());
                assert!(!reached, "{user:?} reaches {other}");
            }
        }
        assert!(!own.for_user(Some("ann")).allows_filter(Action::Subscribe, &filter("orders/ann/#")));
        assert!(own.for_user(Some("ann")).allows_filter(Action::Subscribe, &filter("orders/ann/**")));
    }

    #[test]
    fn a_name_that_fits_no_denying_rule_is_denied_everybodys_place() {
        let template = RightsTemplate::default()
            .allow([Action::Publish], Pattern::parse("**").unwrap())
            .deny([Action::Publish], Pattern::parse("audit/{user}").unwrap());
        let publishes = |user, channel: &str| {
            template.for_user(user).allows(Action::Publish, &Channel::parse(channel).unwrap())
        };
        assert!(!publishes(Some("ann"), "audit/ann") && publishes(Some("ann"), "audit/bob"));
        for user in [None, Some("a/b"), Some("*"), Some("")] {
            assert!(!publishes(user, "audit/ann") && publishes(user, "news"), "{user:?}");
        }
    }
}
