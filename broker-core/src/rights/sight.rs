//! Who may see a message. Decided here and asked in the lane, for live, replayed and retained messages and for those of
//! groups alike; what a front asks besides (a message that waited in it) it asks by [`Principal::may_see`] too.

use super::{Action, Principal};
use crate::channel::Channel;
use crate::filter::Filter;
use crate::key::{GRANTED_TAG, is_granted_tag};

/// What a client may see of a message that hits some of its subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It, by all of them.
    Whole,
    /// It, by those that somebody grants it beside its rights.
    Granted,
    /// Nothing.
    Nothing,
}

impl Principal {
    /// Whether messages on `channel` may be shown to it: it may subscribe there.
    pub fn may_see(&self, channel: &Channel) -> bool {
        self.allows(Action::Subscribe, channel)
    }

    /// What it may see of a message on `channel` that hits the subscriptions `tags`. A denial wins over any grant, an
    /// operator's too.
    pub(crate) fn sight(&self, channel: &Channel, tags: &[u32]) -> Sight {
        if self.may_see(channel) {
            return Sight::Whole;
        }
        let is_granted = tags.iter().any(|tag| is_granted_tag(*tag));
        if is_granted && !self.rights().denies(Action::Subscribe, channel) {
            return Sight::Granted;
        }
        Sight::Nothing
    }

    /// Whether it must be asked for each message of a subscription: some channel of the filter is not for it.
    pub(crate) fn is_asked_for(&self, filter: &Filter, tag: u32) -> bool {
        match tag {
            GRANTED_TAG.. => self.rights().denies_some_of(Action::Subscribe, filter),
            _ => !self.allows_all_of(Action::Subscribe, filter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::{Rights, Rule};

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    fn reader() -> Principal {
        let subscribe = |text| Rule::new([Action::Subscribe], filter(text));
        let rights = Rights::none().allow(subscribe("a/**")).deny(subscribe("a/secret/#"));
        Principal::anonymous(rights.deny(Rule::new([Action::Publish], filter("a/open/#"))))
    }

    #[test]
    fn what_is_denied_is_hidden_and_a_grant_needs_no_right() {
        let granted = GRANTED_TAG + 3;
        for (name, tags, expected) in [
            ("a/b", &[1][..], Sight::Whole),
            ("a/b", &[1, granted], Sight::Whole),
            ("a/secret/b", &[1], Sight::Nothing),
            ("a/secret/b", &[granted], Sight::Nothing),
            ("a", &[1], Sight::Nothing),
            ("b", &[1, granted], Sight::Granted),
            ("b", &[], Sight::Nothing),
        ] {
            assert_eq!(reader().sight(&Channel::parse(name).unwrap(), tags), expected, "{name} {tags:?}");
        }
    }

    #[test]
    fn rights_are_asked_for_each_message_only_where_they_do_not_grant_all() {
        for (text, asked, granted) in [
            ("a/b", false, false),
            ("a/open/#", false, false),
            ("a/*/c", true, true),
            ("a/**", true, true),
            ("a/#", true, true),
            ("b/#", true, false),
            ("a/secret/x", true, true),
        ] {
            let of = |tag| reader().is_asked_for(&filter(text), tag);
            assert_eq!((of(0), of(GRANTED_TAG)), (asked, granted), "{text}");
        }
        let everybody = Principal::anonymous(Rights::all());
        assert!(
            !everybody.is_asked_for(&filter("#"), 0) && !everybody.is_asked_for(&filter("#"), GRANTED_TAG)
        );
    }
}
