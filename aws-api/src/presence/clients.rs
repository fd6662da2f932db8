//! Which client has which place in the broker, and who was there a while ago.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::SubscriberKey;
use parking_lot::Mutex;

/// How long a client that left for good is told of, as with AWS.
const REMEMBERED: Duration = Duration::from_secs(30 * 60);

/// So many of those are told of; the oldest go first.
const MAX_REMEMBERED: usize = 10_000;

/// MQTT clients by identifier: as many as the broker has sessions, and some that are gone.
#[derive(Default)]
pub(crate) struct Clients(Mutex<State>);

#[derive(Default)]
struct State {
    by_id: HashMap<Arc<str>, Known>,
    by_key: HashMap<SubscriberKey, Arc<str>>,
    /// Those that left for good, in the order in which they did.
    remembered: VecDeque<(Instant, Arc<str>, u64)>,
    last_version: u64,
}

/// One client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Its place in the broker.
    pub(crate) key: SubscriberKey,
    /// Numbers the connections of all clients: a later one has a larger number.
    pub(crate) version: u64,
    /// Names the connection.
    pub(crate) session: u64,
    /// Whose it is, if anybody's.
    pub(crate) user: Option<Arc<str>>,
    /// How it left, if it is not here.
    pub(crate) gone: Option<Gone>,
    /// Whether it has a place in the broker still.
    stays: bool,
}

/// How a client left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    /// When, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// Why, as AWS names it.
    pub(crate) reason: &'static str,
}

impl Clients {
    /// A client has come. `now_ms` is the time of day in milliseconds, so that versions grow over restarts too.
    pub(crate) fn join(
        &self,
        id: &str,
        key: SubscriberKey,
        (session, user): (u64, Option<&str>),
        now_ms: u64,
    ) -> Known {
        let mut state = self.0.lock();
        let version = now_ms.max(state.last_version + 1);
        state.last_version = version;
        let id: Arc<str> = id.into();
        let known = Known { key, version, session, user: user.map(Arc::from), gone: None, stays: true };
        if let Some(before) = state.by_id.insert(Arc::clone(&id), known.clone())
            && before.key != key
        {
            state.by_key.remove(&before.key);
        }
        state.by_key.insert(key, id);
        known
    }

    /// It has left, and its session waits for it or not. Who it is; `None` if another one of that name has come.
    pub(crate) fn leave(
        &self,
        key: SubscriberKey,
        gone: Gone,
        stays: bool,
        now: Instant,
    ) -> Option<(Arc<str>, Known)> {
        let mut state = self.0.lock();
        let id = if stays { state.by_key.get(&key).cloned()? } else { state.by_key.remove(&key)? };
        let known = state.by_id.get_mut(&id).filter(|known| known.key == key)?;
        known.stays = stays;
        // A session that ends while its client is away changes nothing of when that left.
        known.gone.get_or_insert(gone);
        let known = known.clone();
        if !stays {
            state.remembered.push_back((now, Arc::clone(&id), known.version));
        }
        state.forget(now);
        Some((id, known))
    }

    /// The client with this identifier.
    pub(crate) fn find(&self, id: &str) -> Option<Known> {
        self.0.lock().by_id.get(id).cloned()
    }

    /// The client in this place of the broker.
    pub(crate) fn at(&self, key: SubscriberKey) -> Option<(Arc<str>, Known)> {
        let state = self.0.lock();
        let id = state.by_key.get(&key)?;
        Some((Arc::clone(id), state.by_id.get(id)?.clone()))
    }
}

impl State {
    fn forget(&mut self, now: Instant) {
        while let Some((at, _, _)) = self.remembered.front()
            && (self.remembered.len() > MAX_REMEMBERED || now.saturating_duration_since(*at) >= REMEMBERED)
            && let Some((_, id, version)) = self.remembered.pop_front()
        {
            if self.by_id.get(&id).is_some_and(|known| known.version == version && !known.stays) {
                self.by_id.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use broker_core::{Broker, Config, OutboxConfig, Subscriber};

    use super::*;

    struct Nobody;

    impl broker_core::Deliver for Nobody {
        fn deliver(&self, _: &broker_core::Delivery, _: &[u32], _: &mut broker_core::Sink<'_>) {}
    }

    fn places(count: usize) -> (Broker, Vec<Subscriber>) {
        let broker = Broker::new(Config::default());
        let places = (0..count).map(|_| broker.attach(Arc::new(Nobody), OutboxConfig::default())).collect();
        (broker, places)
    }

    fn gone(at_ms: u64) -> Gone {
        Gone { at_ms, reason: "CONNECTION_LOST" }
    }

    #[tokio::test]
    async fn a_client_is_found_while_it_is_there_and_for_a_while_after() {
        let (_broker, places) = places(2);
        let (a, b) = (places[0].key(), places[1].key());
        let (clients, start) = (Clients::default(), Instant::now());
        let first = clients.join("a", a, (1, None), 1_000);
        assert_eq!((first.version, clients.find("a")), (1_000, Some(first.clone())));
        assert_eq!(clients.at(a), Some(("a".into(), first)));
        let left = clients.leave(a, gone(2_000), true, start).unwrap();
        assert_eq!((&*left.0, left.1.gone), ("a", Some(gone(2_000))));
        // Its session ends later: it left when it left.
        assert_eq!(clients.leave(a, gone(9_000), false, start).unwrap().1.gone, Some(gone(2_000)));
        assert!(clients.find("a").is_some() && clients.at(a).is_none());
        // The clock was set back; versions go on.
        assert_eq!(clients.join("b", b, (2, None), 500).version, 1_001);
        clients.leave(b, gone(3_000), false, start + REMEMBERED).unwrap();
        assert!(clients.find("a").is_none() && clients.find("b").is_some());
    }

    #[tokio::test]
    async fn whoever_came_later_under_a_name_has_it() {
        let (_broker, places) = places(2);
        let (old, new) = (places[0].key(), places[1].key());
        let (clients, now) = (Clients::default(), Instant::now());
        clients.join("a", old, (1, None), 1_000);
        let second = clients.join("a", new, (2, None), 1_000);
        assert_eq!(clients.leave(old, gone(1), false, now), None);
        assert_eq!(clients.find("a"), Some(second));
    }

    #[tokio::test]
    async fn only_so_many_are_remembered() {
        let (_broker, places) = places(1);
        let key = places[0].key();
        let (clients, now) = (Clients::default(), Instant::now());
        for number in 0..MAX_REMEMBERED + 5 {
            clients.join(&number.to_string(), key, (1, None), 0);
            clients.leave(key, gone(1), false, now).unwrap();
        }
        assert!(clients.find("4").is_none() && clients.find("5").is_some());
        assert_eq!(clients.0.lock().by_id.len(), MAX_REMEMBERED);
    }
}
