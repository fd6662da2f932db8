//! The right to subscribe, where MQTT has fewer wildcards than the rights.

use broker_core::{Action, Filter, Principal};

/// Whether a client may subscribe to `filter`. MQTT has no other wildcard than `#` for all below a topic, so `a/#` is
/// allowed, too, where only `a/**` is. Of what the filter matches some may still be denied, `a` itself among it: that
/// is kept from the client message by message, by the broker's lane.
pub(super) fn may_subscribe(principal: &Principal, filter: &Filter) -> bool {
    let allows = |filter: &Filter| principal.allows_filter(Action::Subscribe, filter);
    allows(filter) || filter.below().is_some_and(|below| allows(&below))
}

#[cfg(test)]
mod tests {
    use broker_core::{Channel, Rights, Rule};

    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    fn of(rights: &Rights) -> Principal {
        Principal::anonymous(rights.clone())
    }

    #[test]
    fn the_right_to_publish_is_another_one() {
        let rights = Rights::none().allow(Rule::new([Action::Publish], filter("**")));
        assert!(!may_subscribe(&of(&rights), &filter("a/#")) && !may_subscribe(&of(&rights), &filter("a")));
    }

    #[test]
    fn all_below_a_channel_may_be_asked_for_with_the_channel() {
        let rights = Rights::none()
            .allow(Rule::new([Action::Subscribe], filter("orders/ann/**")))
            .allow(Rule::new([Action::Subscribe], filter("news/*")))
            .deny(Rule::new([Action::Subscribe], filter("orders/ann/secret/#")))
            .deny(Rule::new([Action::Subscribe], filter("orders/ann/box/**")));
        for (text, expected) in [
            ("orders/ann/#", true),
            ("orders/ann/**", true),
            ("orders/ann/open/#", true),
            ("orders/ann/*/#", true),
            ("orders/ann", false),
            ("orders/#", false),
            ("orders/*/#", false),
            ("orders/bob/#", false),
            ("orders/ann/secret/#", false),
            // The box itself is allowed.
            ("orders/ann/box/#", true),
            ("news/#", false),
            ("#", false),
        ] {
            assert_eq!(may_subscribe(&of(&rights), &filter(text)), expected, "{text}");
        }
        assert!(!rights.allows(Action::Subscribe, &Channel::parse("orders/ann").unwrap()));
        let rights = Rights::none().allow(Rule::new([Action::Subscribe], filter("**")));
        assert!(may_subscribe(&of(&rights), &filter("#")));
        assert!(!may_subscribe(&of(&rights), &filter("$SYS/#")));
    }
}
