//! Whose turn it is to put a page of a replay, or of retained messages, into an outbox.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use super::Outbox;
use super::state::State;

/// Those that have a page for one outbox, in the order of their coming; the first has the turn. One at a time, as two
/// that saw the same room would fill it twice, and each with a waker of its own, as one that is not woken never goes
/// live.
#[derive(Default)]
pub(super) struct Turns {
    waiting: VecDeque<(u64, Option<Waker>)>,
    numbers: u64,
}

/// The right to put one page into an outbox; the next in turn gets it when this is dropped.
#[must_use = "the next page is put when this is dropped"]
pub(crate) struct Turn<'o> {
    outbox: &'o Outbox,
    number: Option<u64>,
}

impl Outbox {
    /// Waits until there is room for what its owner writes piece by piece, as for a page of a replay; or until it is
    /// closed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn drained(&self) {
        drop(self.turn(0).await);
    }

    /// Waits for the caller's turn, and until there is room for a page that weighs so many `bytes`; or until it is
    /// closed.
    pub(crate) async fn turn(&self, bytes: usize) -> Turn<'_> {
        let mut turn = Turn { outbox: self, number: None };
        poll_fn(|cx| turn.poll(bytes, cx)).await;
        turn
    }
}

impl Turn<'_> {
    /// Waits until there is room for another page, without giving the turn away.
    pub(crate) async fn room(&mut self, bytes: usize) {
        poll_fn(|cx| self.poll(bytes, cx)).await;
    }

    fn poll(&mut self, bytes: usize, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.outbox.state.lock();
        if state.closed.is_some() {
            return Poll::Ready(());
        }
        let mut room = self.outbox.has_room_for_page(&state, bytes);
        if !room {
            state.drop_expired();
            room = self.outbox.has_room_for_page(&state, bytes);
        }
        let turns = state.turns.get_or_insert_default();
        let number = *self.number.get_or_insert_with(|| {
            turns.numbers += 1;
            turns.waiting.push_back((turns.numbers, None));
            turns.numbers
        });
        if room && turns.waiting.front().is_some_and(|(first, _)| *first == number) {
            return Poll::Ready(());
        }
        if let Some((_, waker)) = turns.waiting.iter_mut().find(|(waits, _)| *waits == number) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut state = self.outbox.state.lock();
        let Some(turns) = &mut state.turns else { return };
        turns.waiting.retain(|(waits, _)| *waits != number);
        if turns.waiting.is_empty() {
            state.turns = None;
        }
        state.tell_drained();
    }
}

impl State {
    /// There may be room for a page now.
    pub(super) fn tell_drained(&mut self) {
        if let Some(turns) = &mut self.turns
            && let Some((_, waker)) = turns.waiting.front_mut()
            && let Some(waker) = waker.take()
        {
            waker.wake();
        }
    }

    /// It is closed: nobody waits any longer.
    pub(super) fn end_turns(&mut self) {
        for (_, waker) in self.turns.iter_mut().flat_map(|turns| &mut turns.waiting) {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }
}
