//! How many sessions wait for clients that are away, counted by who left them there.

use std::net::IpAddr;
use std::sync::Arc;

use broker_core::{Network, Principal};
use dashmap::DashMap;

use super::scope::owner;
use crate::config::Config;

/// Who a session is counted against: its user, and where users cannot be told apart the address it came from. Many
/// users behind one address so have a bound each, and none can use up the others'.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Holder {
    User(Box<str>),
    Address(Network),
}

impl Holder {
    /// `None`: there is neither a user nor an address, as on a pipe within the process.
    pub(crate) fn of(principal: &Principal, remote: Option<IpAddr>) -> Option<Self> {
        owner(principal).map(Self::User).or_else(|| remote.map(|remote| Self::Address(Network::of(remote))))
    }

    fn max(&self, config: &Config) -> usize {
        match self {
            Self::User(_) => config.max_absent_sessions_per_user,
            Self::Address(_) => config.max_absent_sessions_per_address,
        }
    }
}

/// The counts. Clones are handles to the same ones.
#[derive(Clone, Default)]
pub(crate) struct Absent(Arc<DashMap<Holder, usize>>);

/// One session's part in them, for as long as its client is away.
pub(crate) struct Counted {
    absent: Absent,
    holder: Holder,
}

impl Absent {
    /// Whether this holder may leave one more.
    pub(crate) fn admits(&self, holder: &Holder, config: &Config) -> bool {
        self.0.get(holder).is_none_or(|count| *count < holder.max(config))
    }

    pub(crate) fn count(&self, holder: Holder) -> Counted {
        *self.0.entry(holder.clone()).or_insert(0) += 1;
        Counted { absent: self.clone(), holder }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.absent.0.remove_if_mut(&self.holder, |_, count| {
            *count = count.saturating_sub(1);
            *count == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use broker_core::Rights;

    use super::*;

    #[test]
    fn users_are_counted_by_name_and_nobody_in_particular_by_address() {
        let config = Config {
            max_absent_sessions_per_user: 1,
            max_absent_sessions_per_address: 2,
            ..Config::default()
        };
        let nobody = Principal::anonymous(Rights::all());
        let (ann, bob) =
            (Principal::user_with("ann", Rights::all()), Principal::user_with("bob", Rights::all()));
        let here = Some("192.0.2.1".parse().unwrap());
        let absent = Absent::default();
        let of = |who: &Principal, from| Holder::of(who, from).unwrap();
        let first = absent.count(of(&nobody, here));
        assert!(absent.admits(&of(&nobody, here), &config));
        let _second = absent.count(of(&nobody, here));
        assert!(!absent.admits(&of(&nobody, here), &config));
        assert!(absent.admits(&of(&nobody, Some("192.0.2.2".parse().unwrap())), &config));
        assert!(absent.admits(&of(&ann, here), &config));
        let _ann = absent.count(of(&ann, here));
        assert!(!absent.admits(&of(&ann, Some("192.0.2.9".parse().unwrap())), &config));
        assert!(absent.admits(&of(&bob, here), &config), "behind the same address");
        drop(first);
        assert!(absent.admits(&of(&nobody, here), &config));
        let six = |text: &str| of(&nobody, Some(text.parse().unwrap()));
        assert_eq!(six("2001:db8::1"), six("2001:db8::2"));
        assert_ne!(six("2001:db8::1"), six("2001:db8:0:1::1"));
        assert_eq!(six("::ffff:192.0.2.1"), of(&nobody, here));
        assert_eq!(Holder::of(&nobody, None), None);
        drop((_second, _ann));
        assert!(absent.0.is_empty(), "nothing is left of who is back");
    }
}
