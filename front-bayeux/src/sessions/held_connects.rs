//! How many connects each browser holds (CometD, "multiple-clients").

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use smallvec::SmallVec;

use crate::codec::id::ClientId;

/// The sessions of each browser's held connects, with the connects' numbers.
#[derive(Default)]
pub(crate) struct HeldConnects(DashMap<Box<str>, SmallVec<[(ClientId, u64); 1]>>);

impl HeldConnects {
    /// Counts a held connect of a browser; false if it holds `max` of other sessions already. A newer
    /// connect of the same session takes the place of the older.
    pub(crate) fn hold(&self, browser: &str, id: ClientId, token: u64, max: usize) -> bool {
        let mut held = self.0.entry(browser.into()).or_default();
        if let Some(known) = held.iter_mut().find(|(known, _)| *known == id) {
            known.1 = token;
            return true;
        }
        if held.len() >= max {
            if held.is_empty() {
                let key = held.key().clone();
                drop(held);
                self.0.remove_if(&key, |_, held| held.is_empty());
            }
            return false;
        }
        held.push((id, token));
        true
    }

    /// The connect `token` is held no longer.
    pub(crate) fn let_go(&self, browser: &str, id: ClientId, token: u64) {
        if let Entry::Occupied(mut held) = self.0.entry(browser.into()) {
            held.get_mut().retain(|known| *known != (id, token));
            if held.get().is_empty() {
                held.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_holds_as_many_sessions_as_it_may() {
        let held = HeldConnects::default();
        let [a, b] = [(); 2].map(|()| ClientId::random().unwrap());
        assert!(held.hold("x", a, 1, 1) && !held.hold("x", b, 1, 1) && held.hold("y", b, 1, 1));
        assert!(held.hold("x", a, 2, 1), "the same session again");
        held.let_go("x", a, 1);
        assert!(!held.hold("x", b, 1, 1), "the newer connect is still held");
        held.let_go("x", a, 2);
        assert!(held.hold("x", b, 1, 1));
        assert!(!held.hold("z", a, 1, 0) && held.0.len() == 2);
    }
}
