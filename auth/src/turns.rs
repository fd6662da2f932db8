//! Whose turn it is to have a password checked.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use broker_core::Network;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A few turns at a time. Who waits, waits in a queue of its address, and the addresses have their turns one after the
/// other: however many one of them has waiting, another's first waits for one check of each address before it.
#[derive(Clone, Debug)]
pub(super) struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    waiting: usize,
    max_waiting: usize,
    queues: HashMap<Option<Network>, VecDeque<oneshot::Sender<Turn>>>,
    /// Addresses that have somebody waiting, the next one first.
    next: VecDeque<Option<Network>>,
}

/// A turn; dropping it gives it to the next.
#[derive(Debug)]
pub(super) struct Turn(Turns);

/// More wait already than may.
#[derive(Debug, PartialEq)]
pub(super) struct TooMany;

impl Turns {
    pub(super) fn new(at_a_time: usize, max_waiting: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: at_a_time.max(1),
            waiting: 0,
            max_waiting: max_waiting.max(1),
            queues: HashMap::new(),
            next: VecDeque::new(),
        })))
    }

    /// Waits for a turn. With too many waiting, the last of the address that has most of them is sent away: it is the
    /// one that has come if that is its own.
    ///
    /// # Errors
    /// There are too many, now or later.
    ///
    /// # Cancel safety
    /// Who does not wait any more is passed over.
    pub(super) async fn acquire(&self, address: Option<IpAddr>) -> Result<Turn, TooMany> {
        let address = address.map(Network::of);
        let turn = {
            let mut state = self.0.lock();
            if state.free > 0 {
                state.free -= 1;
                return Ok(Turn(self.clone()));
            }
            state.enqueue(address)?
        };
        turn.await.map_err(|_| TooMany)
    }

    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.0.lock().waiting
    }

    #[cfg(test)]
    fn free(&self) -> usize {
        self.0.lock().free
    }
}

impl State {
    fn enqueue(&mut self, address: Option<Network>) -> Result<oneshot::Receiver<Turn>, TooMany> {
        if self.waiting >= self.max_waiting {
            self.forget_gone();
        }
        if self.waiting >= self.max_waiting {
            let own = self.queues.get(&address).map_or(0, VecDeque::len);
            let largest = self.queues.iter_mut().max_by_key(|(_, queue)| queue.len());
            match largest {
                Some((_, queue)) if queue.len() > own + 1 => {
                    queue.pop_back();
                    self.waiting -= 1;
                }
                _ => return Err(TooMany),
            }
        }
        let (sender, receiver) = oneshot::channel();
        let queue = self.queues.entry(address).or_default();
        if queue.is_empty() {
            self.next.push_back(address);
        }
        queue.push_back(sender);
        self.waiting += 1;
        Ok(receiver)
    }

    /// Those who do not wait any more keep nobody out.
    fn forget_gone(&mut self) {
        self.queues.retain(|_, queue| {
            queue.retain(|waiting| !waiting.is_closed());
            !queue.is_empty()
        });
        self.next.retain(|address| self.queues.contains_key(address));
        self.waiting = self.queues.values().map(VecDeque::len).sum();
    }

    /// Takes whoever is next, of the address that is next.
    fn take_next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let address = self.next.pop_front()?;
        let queue = self.queues.get_mut(&address)?;
        let first = queue.pop_front();
        self.waiting -= usize::from(first.is_some());
        if queue.is_empty() {
            self.queues.remove(&address);
        } else {
            self.next.push_back(address);
        }
        first
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let turns = self.0.clone();
        let mut state = turns.0.lock();
        loop {
            match state.take_next() {
                None => {
                    state.free += 1;
                    return;
                }
                // One who left between being taken and being told has the turn dropped with its channel, which comes back here, so
                // never while the state is locked.
                Some(waiting) if !waiting.is_closed() => {
                    drop(state);
                    _ = waiting.send(Turn(turns));
                    return;
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    type Waiting = Pin<Box<dyn Future<Output = Result<Turn, TooMany>>>>;

    fn wait(turns: &Turns, from: &str) -> Waiting {
        let (turns, from) = (turns.clone(), address(from));
        let mut waiting: Waiting = Box::pin(async move { turns.acquire(from).await });
        assert!(poll(&mut waiting).is_none(), "it waits");
        waiting
    }

    fn poll(waiting: &mut Waiting) -> Option<Result<Turn, TooMany>> {
        match pin!(waiting).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn an_address_that_waits_often_keeps_no_other_waiting() {
        let turns = Turns::new(1, 100);
        let held = turns.acquire(None).await.unwrap();
        let mut often: Vec<_> = (0..50).map(|_| wait(&turns, "2001:db8::1")).collect();
        often.extend((0..5).map(|_| wait(&turns, "2001:db8::2")));
        let mut once = wait(&turns, "10.0.0.1");
        drop(held);
        let first = poll(&mut often[0]).expect("it came first").unwrap();
        assert!(poll(&mut once).is_none());
        drop(first);
        let second = poll(&mut once).expect("the other address' turn").unwrap();
        drop(second);
        assert!(poll(&mut often[1]).is_some_and(|turn| turn.is_ok()));
        drop(often);
        assert_eq!(turns.free(), 1, "who left is passed over");
        assert_eq!(turns.waiting(), 0);
    }

    #[tokio::test]
    async fn too_many_of_one_address_are_sent_away_for_another() {
        let turns = Turns::new(1, 3);
        let held = turns.acquire(None).await.unwrap();
        let mut often: Vec<_> = (0..3).map(|_| wait(&turns, "10.0.0.1")).collect();
        assert_eq!(turns.acquire(address("10.0.0.1")).await.unwrap_err(), TooMany);
        let mut other = wait(&turns, "10.0.0.2");
        assert_eq!(poll(&mut often[2]).unwrap().unwrap_err(), TooMany, "the last of the one who has most");
        assert_eq!(turns.acquire(address("10.0.0.2")).await.unwrap_err(), TooMany, "it would have as many");
        drop(often.remove(0));
        let third = wait(&turns, "10.0.0.3");
        drop(held);
        assert!(poll(&mut often[0]).unwrap().is_ok());
        assert!(poll(&mut other).unwrap().is_ok());
        drop(third);
        assert_eq!(turns.free(), 1);
        assert_eq!(turns.waiting(), 0);
    }

    #[tokio::test]
    async fn a_turn_given_to_one_who_leaves_goes_on() {
        let turns = Turns::new(1, 3);
        let held = turns.acquire(None).await.unwrap();
        let gone = wait(&turns, "10.0.0.1");
        drop(held);
        let mut next = wait(&turns, "10.0.0.2");
        drop(gone);
        assert!(poll(&mut next).unwrap().is_ok());
        assert_eq!(turns.free(), 1);
    }
}
