//! Clients that connect to another node: the identifier is theirs there, and the session here is over.
//!
//! A node claims an identifier when a client connects with it, and tells the others. Of two claims the later one holds, by
//! time and then by the node's life. The time is the clock's, or just behind the latest that was heard of: so a node that
//! knows of a claim makes a later one, whatever its clock says.

use std::cmp::Ordering;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use broker_core::Claim::Look;
use broker_core::{Answer, LeaveReason, Owner, unix_ms};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::MutexGuard;

use super::attached::Farewell;
use super::goodbye::goodbye;
use super::keeping;
use super::sessions::Hosted;
use crate::codec::Reason;
use crate::front::Inner;
use crate::protocol::{Detached, End, State};

/// Other nodes of a cluster: given to [`Front::join`](crate::Front::join).
pub trait Nodes: Send + Sync {
    /// Tells them of a claim, soon. They give it to [`Front::claimed_elsewhere`](crate::Front::claimed_elsewhere). May not
    /// block.
    fn tell(&self, claim: Claim);
}

/// A client is connected to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// What its session is found by; not for people.
    pub key: Arc<str>,
    /// When it connected, in milliseconds since 1970, or just behind an earlier claim.
    pub time_ms: u64,
    /// The life of its node, different for all.
    pub life: u64,
    /// Whether it wants none of what a session before had.
    pub clean_start: bool,
}

impl Claim {
    /// As bytes, behind others.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.time_ms.to_be_bytes());
        out.extend_from_slice(&self.life.to_be_bytes());
        out.push(u8::from(self.clean_start));
        // An identifier has two bytes for its length, and what its owner is called may stand before it.
        let bytes = u32::try_from(self.key.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&bytes.to_be_bytes());
        out.extend_from_slice(self.key.as_bytes());
    }

    /// The first of those that [`write`](Self::write) has written, and the rest; `None` if it has written no such bytes.
    pub fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (time_ms, rest) = bytes.split_first_chunk::<8>()?;
        let (life, rest) = rest.split_first_chunk::<8>()?;
        let (clean_start, rest) = rest.split_first()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (key, rest) = rest.split_at_checked(u32::from_be_bytes(*length).try_into().ok()?)?;
        let claim = Self {
            key: std::str::from_utf8(key).ok()?.into(),
            time_ms: u64::from_be_bytes(*time_ms),
            life: u64::from_be_bytes(*life),
            clean_start: *clean_start != 0,
        };
        Some((claim, rest))
    }

    fn cmp(&self, other: &Self) -> Ordering {
        (self.time_ms, self.life).cmp(&(other.time_ms, other.life))
    }
}

/// The claims of this node, if there are others.
#[derive(Default)]
pub(crate) struct Elsewhere(OnceLock<Claims>);

struct Claims {
    nodes: Arc<dyn Nodes>,
    life: u64,
    latest_ms: AtomicU64,
    by_key: DashMap<Arc<str>, Claim>,
}

impl Claims {
    fn note(&self, claim: &Claim) {
        self.by_key.insert(claim.key.clone(), claim.clone());
    }

    /// Whether the claim is later than the one that this node has, if it has one; else its own, which is to be told again.
    fn gives_way_to(&self, claim: &Claim) -> Result<(), Claim> {
        match self.by_key.get(&claim.key) {
            Some(own) if own.cmp(claim).is_gt() => Err(own.clone()),
            _ => Ok(()),
        }
    }
}

impl Elsewhere {
    pub(crate) fn join(&self, nodes: Arc<dyn Nodes>, life: u64) {
        let claims = Claims { nodes, life, latest_ms: AtomicU64::new(0), by_key: DashMap::new() };
        _ = self.0.set(claims);
    }

    /// Whether there are other nodes.
    pub(crate) fn are_there(&self) -> bool {
        self.0.get().is_some()
    }

    /// A client is about to be given its session: from now on it is known when. `None` without other nodes.
    pub(super) fn claim(&self, key: &Arc<str>, clean_start: bool) -> Option<Begun<'_>> {
        let claims = self.0.get()?;
        let now = unix_ms();
        let next = |latest: u64| Some(now.max(latest.saturating_add(1)));
        let before = claims.latest_ms.fetch_update(Relaxed, Relaxed, next).unwrap_or(now);
        let time_ms = now.max(before.saturating_add(1));
        let claim = Claim { key: key.clone(), time_ms, life: claims.life, clean_start };
        let before = claims.by_key.insert(key.clone(), claim.clone());
        Some(Begun { claims, claim, before, is_over: false })
    }

    /// A session under this key is over; there may be another one.
    pub(crate) fn forget(&self, key: &str, is_there: impl FnOnce(&str) -> bool) {
        if let Some(claims) = self.0.get()
            && !is_there(key)
        {
            claims.by_key.remove(key);
        }
    }

    /// All claims of clients that are here.
    pub(crate) fn all(&self) -> Vec<Claim> {
        let claims = self.0.get().map(|claims| claims.by_key.iter().map(|entry| entry.value().clone()));
        claims.into_iter().flatten().collect()
    }
}

/// A claim of a client that has no session yet.
pub(super) struct Begun<'a> {
    claims: &'a Claims,
    claim: Claim,
    /// Of the connection before.
    before: Option<Claim>,
    is_over: bool,
}

impl Begun<'_> {
    /// It has its session: the others are told.
    pub(super) fn tell(mut self) {
        self.is_over = true;
        // In case that an older session of the client ended meanwhile.
        self.claims.note(&self.claim);
        self.claims.nodes.tell(self.claim.clone());
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // It was not let in: whoever was there is still there.
        if let Entry::Occupied(mut held) = self.claims.by_key.entry(self.claim.key.clone())
            && held.get() == &self.claim
        {
            match self.before.take() {
                Some(before) => _ = held.insert(before),
                None => _ = held.remove(),
            }
        }
    }
}

/// What becomes of the will of a session that is over here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WillOf {
    /// A client that wants none of the session.
    CleanStart,
    /// One that is back: what is delayed is cancelled (MQTT 5.0 §3.1.3.2.2).
    Resumption,
    /// A session that another node has, with its will.
    Another,
}

impl Inner {
    /// A client is connected to another node. Its session here is over, unless it came here later. Its will is what it is in
    /// a takeover on one node.
    pub(crate) fn claimed_elsewhere(self: &Arc<Self>, claim: &Claim) {
        let Some(claims) = self.elsewhere.0.get() else { return };
        claims.latest_ms.fetch_max(claim.time_ms, Relaxed);
        let hosted = self.sessions.get(&claim.key);
        if let Some(hosted) = hosted.clone().filter(|hosted| hosted.session.lock().kept().is_some()) {
            // Whoever keeps it knows who has it, whatever the clocks say.
            let inner = Arc::clone(self);
            tokio::spawn(async move {
                if inner.is_elsewhere(hosted.session.key()).await {
                    inner.give_up(&hosted);
                }
            });
            return;
        }
        if let Err(own) = claims.gives_way_to(claim) {
            // The other node may have had its client in before it heard of this one.
            return claims.nodes.tell(own);
        }
        let Some(hosted) = hosted else { return };
        let farewell = hosted.farewell();
        let state = hosted.session.lock();
        // The client may be back here by now, with a session that is kept.
        if state.ended || state.kept().is_some() || claims.gives_way_to(claim).is_err() {
            return;
        }
        let will = if claim.clean_start { WillOf::CleanStart } else { WillOf::Resumption };
        self.hand_over(&hosted, state, &farewell, will);
    }

    /// Records a session that is kept, as it is now.
    pub(crate) fn record(&self, key: &str) -> Answer<'static, ()> {
        let hosted = self.sessions.get(key);
        match hosted.and_then(|hosted| keeping::record(self, &hosted)) {
            Some((_, recorded)) => recorded.map(drop),
            None => Answer::now(()),
        }
    }

    /// Whether another node has a session that is kept, by the word of whoever keeps it; what it cannot tell now shows in
    /// the next record.
    async fn is_elsewhere(&self, key: &str) -> bool {
        let looked = self.broker.claim_session(key, Look).await;
        looked.is_ok_and(|looked| looked.owner != Owner::This)
    }

    /// Another node has the session: its client is told, and of its will nothing is published here.
    pub(crate) fn give_up(&self, hosted: &Arc<Hosted>) {
        let farewell = hosted.farewell();
        let state = hosted.session.lock();
        if !state.ended {
            self.hand_over(hosted, state, &farewell, WillOf::Another);
        }
    }

    fn hand_over(
        &self,
        hosted: &Arc<Hosted>,
        mut state: MutexGuard<'_, State>,
        farewell: &Farewell,
        of: WillOf,
    ) {
        let timer = state.away.take().and_then(|away| away.timer);
        let (mut will, mut remains) = (None, None);
        if of == WillOf::Another {
            state.will = None;
        }
        if let Some(online) = &state.online {
            let goodbye = goodbye(hosted.session.config(), online, Reason::SessionTakenOver, None);
            online.outbox.send_last(goodbye);
            match state.handle_disconnected(hosted.session.shared(), End::Closed(Reason::SessionTakenOver)) {
                Detached::Ended(left) => remains = Some(left),
                Detached::Stays { will: due, .. } => will = due,
            }
        }
        let remains = remains.unwrap_or_else(|| {
            let mut left = state.handle_ended();
            if of == WillOf::Resumption {
                left.will = None;
            }
            left
        });
        drop(state);
        if let Some(timer) = timer {
            self.timers().cancel(timer);
        }
        self.publish_wills(will);
        self.end(hosted, remains, LeaveReason::TakenOver, farewell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(time_ms: u64, life: u64) -> Claim {
        Claim { key: "a".into(), time_ms, life, clean_start: true }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        let claims = [claim(7, u64::MAX), Claim { key: "ann\0ü".into(), clean_start: false, ..claim(1, 2) }];
        claims.iter().for_each(|claim| claim.write(&mut bytes));
        let (first, rest) = Claim::read(&bytes).unwrap();
        let (second, rest) = Claim::read(rest).unwrap();
        assert_eq!(([first, second], rest), (claims, &[][..]));
        for length in 0..22 {
            assert_eq!(Claim::read(&bytes[..length]), None, "{length}");
        }
    }

    #[derive(Default)]
    struct Told(parking_lot::Mutex<Vec<Claim>>);

    impl Nodes for Told {
        fn tell(&self, claim: Claim) {
            self.0.lock().push(claim);
        }
    }

    #[test]
    fn the_later_claim_holds_and_a_node_that_knows_of_one_makes_a_later_one() {
        let (elsewhere, told) = (Elsewhere::default(), Arc::<Told>::default());
        elsewhere.join(told.clone(), 5);
        elsewhere.claim(&"a".into(), false).unwrap().tell();
        let own = told.0.lock()[0].clone();
        let claims = elsewhere.0.get().unwrap();
        assert_eq!(claims.gives_way_to(&claim(own.time_ms - 1, 9)), Err(own.clone()));
        assert_eq!(claims.gives_way_to(&claim(own.time_ms, 4)), Err(own.clone()));
        assert_eq!(claims.gives_way_to(&claim(own.time_ms, 6)), Ok(()));
        assert_eq!(claims.gives_way_to(&claim(own.time_ms + 1, 1)), Ok(()));
        // Of a node whose clock is an hour ahead.
        let ahead = own.time_ms + 3_600_000;
        claims.latest_ms.fetch_max(ahead, Relaxed);
        elsewhere.claim(&"a".into(), false).unwrap().tell();
        assert_eq!(told.0.lock()[1].time_ms, ahead + 1);
    }

    #[test]
    fn who_is_not_let_in_claims_nothing() {
        let (elsewhere, told) = (Elsewhere::default(), Arc::<Told>::default());
        elsewhere.join(told.clone(), 5);
        drop(elsewhere.claim(&"a".into(), false));
        assert_eq!((elsewhere.all(), told.0.lock().len()), (vec![], 0));
        elsewhere.claim(&"a".into(), false).unwrap().tell();
        let held = elsewhere.all();
        drop(elsewhere.claim(&"a".into(), true));
        assert_eq!(elsewhere.all(), held);
        elsewhere.forget("a", |_| true);
        assert_eq!(elsewhere.all(), held);
        elsewhere.forget("a", |_| false);
        assert_eq!(elsewhere.all(), []);
    }
}
