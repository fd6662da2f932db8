//! The sessions by their ids, and how many each address has.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::member::Member;
use crate::codec::id::ClientId;

/// No room for another session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// See the module.
#[derive(Default)]
pub(crate) struct Registry {
    members: DashMap<ClientId, Arc<Member>>,
    addresses: DashMap<IpAddr, usize>,
}

/// Bounds of the registry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    pub(crate) max_sessions: usize,
    pub(crate) max_per_address: usize,
}

impl Registry {
    /// Claims a place for a session of this address, before anything is made for it; [`insert`](Self::insert)
    /// uses the place, [`release`](Self::release) gives it back.
    pub(crate) fn reserve(&self, address: Option<IpAddr>, capacity: Capacity) -> Result<(), TooMany> {
        if self.members.len() >= capacity.max_sessions {
            return Err(TooMany);
        }
        let Some(address) = address else { return Ok(()) };
        let mut count = self.addresses.entry(address).or_insert(0);
        if *count >= capacity.max_per_address {
            return Err(TooMany);
        }
        *count += 1;
        Ok(())
    }

    fn release(&self, address: Option<IpAddr>) {
        let Some(address) = address else { return };
        if let Entry::Occupied(mut count) = self.addresses.entry(address) {
            *count.get_mut() = count.get().saturating_sub(1);
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    pub(super) fn insert(&self, member: Arc<Member>) {
        self.members.insert(member.id, member);
    }

    pub(crate) fn find(&self, id: &ClientId) -> Option<Arc<Member>> {
        self.members.get(id).map(|member| Arc::clone(&member))
    }

    /// False if it was gone already.
    pub(super) fn remove(&self, id: &ClientId) -> bool {
        let Some((_, member)) = self.members.remove(id) else { return false };
        self.release(member.address);
        member.detach();
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Those whose time has come, copied out so that no shard is locked while they are handled.
    pub(super) fn due(&self, now: Instant) -> Vec<Arc<Member>> {
        let due = |member: &Arc<Member>| member.mailbox.needs_sweep(now).then(|| Arc::clone(member));
        self.members.iter().filter_map(|member| due(&member)).collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Member>> {
        self.members.iter().map(|member| Arc::clone(&member)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted() {
        let registry = Registry::default();
        let capacity = Capacity { max_sessions: 10, max_per_address: 1 };
        let address = Some(IpAddr::from([127, 0, 0, 1]));
        assert_eq!(registry.reserve(address, capacity), Ok(()));
        assert_eq!(registry.reserve(address, capacity), Err(TooMany));
        assert_eq!(registry.reserve(None, capacity), Ok(()));
        registry.release(address);
        assert!(registry.addresses.is_empty());
        assert_eq!(registry.reserve(address, capacity), Ok(()));
    }
}
