//! One subscriber's way through the retained messages, for all its new filters, a page at a time.
//!
//! A filter goes through the store by itself as long as that is cheap, passing over what it cannot match. When the
//! filters together have looked at as many names as there are, the rest of them share one pass over everything, in
//! which each name is matched against all of them at once: thousands of filters cost a small multiple of one.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::order::{Cursor, Name};
use super::{Found, Limits, PAGE_STEPS, Retained};
use crate::filter::Filter;
use crate::interest::trie::{Trie, Value};
use crate::message::{Message, Position};

#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Those that go by themselves, or wait for their turn.
    alone: VecDeque<Wanted>,
    /// Names that those may still look at.
    allowance: usize,
    pass: Option<Pass>,
    /// Tags of those that have had everything, until somebody takes them.
    finished: Vec<u32>,
}

/// A subscription that has not had all its retained messages.
#[derive(Debug)]
struct Wanted {
    filter: Filter,
    tag: u32,
    /// What came after this position comes live; `None`: all was there before.
    head: Option<Position>,
    cursor: Cursor,
}

/// One way through the store for many filters.
#[derive(Debug)]
struct Pass {
    wanted: Vec<Wanted>,
    by_filter: Trie<Places>,
    cursor: Cursor,
    /// Found and not on a page yet.
    found: VecDeque<(Arc<Message>, u32)>,
    is_over: bool,
}

/// Places in [`Pass::wanted`].
type Places = SmallVec<[u32; 1]>;

impl Value for Places {
    fn is_empty(&self) -> bool {
        SmallVec::is_empty(self)
    }
}

/// What a subscriber is to be sent next.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// With the tag of the subscription.
    pub(crate) messages: Vec<(Arc<Message>, u32)>,
    pub(crate) bytes: usize,
}

fn is_before(message: &Message, head: Option<Position>) -> bool {
    head.is_none_or(|head| message.is_within(&head))
}

impl Scan {
    /// Wants all that match, up to the position `head`, if there is one. Asked for again, they are sent from the start
    /// again: a subscription is in here once, however often its client repeats it.
    pub(crate) fn want(&mut self, filter: &Filter, tag: u32, head: Option<Position>, retained: &Retained) {
        self.forget(tag);
        if self.alone.is_empty() {
            self.allowance = retained.usage().0 + PAGE_STEPS;
        }
        self.alone.push_back(Wanted { filter: filter.clone(), tag, head, cursor: Cursor::Start });
    }

    /// Whether a subscription is in here, even if it has had everything.
    pub(crate) fn holds(&self, tag: u32) -> bool {
        let passing = self.pass.iter().flat_map(|pass| &pass.wanted);
        self.finished.contains(&tag) || self.alone.iter().chain(passing).any(|wanted| wanted.tag == tag)
    }

    /// No longer wants a subscription's; false if it was not in here.
    pub(crate) fn forget(&mut self, tag: u32) -> bool {
        let before = self.alone.len() + self.finished.len();
        self.alone.retain(|wanted| wanted.tag != tag);
        self.finished.retain(|finished| *finished != tag);
        let in_pass = self.pass.as_mut().is_some_and(|pass| pass.forget(tag));
        in_pass || self.alone.len() + self.finished.len() < before
    }

    /// All have had enough.
    pub(crate) fn give_up(&mut self) {
        let alone = std::mem::take(&mut self.alone);
        let passing = self.pass.take().into_iter().flat_map(|pass| pass.wanted);
        self.finished.extend(alone.into_iter().chain(passing).map(|wanted| wanted.tag));
    }

    /// Whether nothing is left to look for.
    pub(crate) fn is_over(&self) -> bool {
        self.alone.is_empty() && self.pass.is_none()
    }

    pub(crate) fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// The subscriptions that have had everything with the last page.
    pub(crate) fn take_finished(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.finished)
    }

    /// The next page. It may be empty: then as much was looked at as may be in one go.
    pub(crate) fn page(&mut self, retained: &Retained, limits: Limits, now_ms: u64) -> Page {
        let mut page = Page::default();
        if let Some(pass) = &mut self.pass {
            pass.page(retained, limits, now_ms, &mut page);
            if pass.is_over && pass.found.is_empty() {
                let wanted = self.pass.take().into_iter().flat_map(|pass| pass.wanted);
                self.finished.extend(wanted.map(|wanted| wanted.tag));
            }
            return page;
        }
        let mut left = limits.steps;
        while left > 0
            && let Some(wanted) = self.alone.front_mut()
        {
            if self.allowance == 0 {
                self.pass = Some(Pass::new(std::mem::take(&mut self.alone)));
                break;
            }
            let (tag, head) = (wanted.tag, wanted.head);
            let is_wanted = |message: &Message| is_before(message, head) && !message.is_expired(now_ms);
            let mut found = Found::default();
            let room = Limits {
                messages: limits.messages - page.messages.len(),
                bytes: limits.bytes.saturating_sub(page.bytes),
                steps: left.min(self.allowance),
            };
            let progress = retained.go_on(&wanted.filter, &mut wanted.cursor, room, is_wanted, &mut found);
            let has_found = !found.messages.is_empty();
            // Finding is what it is for; only looking in vain is counted.
            self.allowance -= progress.steps.saturating_sub(found.messages.len()).min(self.allowance);
            left -= progress.steps.min(left).max(1);
            page.bytes += found.bytes;
            page.messages.extend(found.messages.into_iter().map(|message| (message, tag)));
            if progress.is_over {
                self.alone.pop_front();
                self.finished.push(tag);
            }
            if has_found && (page.messages.len() >= limits.messages || page.bytes >= limits.bytes) {
                break;
            }
        }
        page
    }
}

impl Pass {
    fn new(wanted: VecDeque<Wanted>) -> Self {
        let wanted = Vec::from(wanted);
        let mut by_filter = Trie::default();
        for (place, wanted) in (0..).zip(&wanted) {
            by_filter.edit(&wanted.filter, |places: &mut Places| places.push(place));
        }
        Self { wanted, by_filter, cursor: Cursor::Start, found: VecDeque::new(), is_over: false }
    }

    fn forget(&mut self, tag: u32) -> bool {
        let Some(place) = self.wanted.iter().position(|wanted| wanted.tag == tag) else { return false };
        let gone = self.wanted.swap_remove(place);
        let (place, last) = (place as u32, self.wanted.len() as u32);
        self.by_filter.edit(&gone.filter, |places| places.retain(|other| *other != place));
        if let Some(moved) = self.wanted.get(place as usize) {
            self.by_filter.edit(&moved.filter, |places| {
                for other in places.iter_mut().filter(|other| **other == last) {
                    *other = place;
                }
            });
        }
        self.found.retain(|(_, other)| *other != tag);
        true
    }

    fn page(&mut self, retained: &Retained, limits: Limits, now_ms: u64, page: &mut Page) {
        if self.found.is_empty() && !self.is_over {
            self.match_some(retained, limits.steps, now_ms);
        }
        while page.messages.len() < limits.messages
            && let Some((message, _)) = self.found.front()
            && (page.messages.is_empty() || page.bytes + message.weight() <= limits.bytes)
        {
            page.bytes += message.weight();
            page.messages.extend(self.found.pop_front());
        }
    }

    /// Matches the next names; the more filters, the fewer names in one go.
    fn match_some(&mut self, retained: &Retained, steps: usize, now_ms: u64) {
        let count = (steps * 64 / (64 + self.wanted.len())).max(8);
        let messages = retained.next_messages(&mut self.cursor, count);
        self.is_over = messages.is_empty();
        for message in messages.into_iter().filter(|message| !message.is_expired(now_ms)) {
            let name = Name(Arc::clone(message.channel().shared()));
            let (wanted, found) = (&self.wanted, &mut self.found);
            self.by_filter.visit(message.channel(), &mut |places: &Places| {
                let hits = places.iter().filter_map(|place| wanted.get(*place as usize));
                let hits = hits.filter(|hit| is_before(&message, hit.head) && !hit.cursor.has_passed(&name));
                found.extend(hits.map(|hit| (Arc::clone(&message), hit.tag)));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::message;
    use super::*;

    const LIMITS: Limits = Limits { messages: 100, bytes: 1 << 20, steps: PAGE_STEPS };

    fn store(names: impl IntoIterator<Item = String>) -> Retained {
        let retained = Retained::new(usize::MAX, usize::MAX);
        for name in names {
            retained.set(message(&name, None));
        }
        retained
    }

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    /// All pages: what came with its tag, the tags that were told to be done, and the number of pages.
    fn all(scan: &mut Scan, retained: &Retained) -> (Vec<(String, u32)>, Vec<u32>, usize) {
        let (mut came, mut done, mut pages) = (Vec::new(), Vec::new(), 0);
        while !scan.is_over() {
            let page = scan.page(retained, LIMITS, 0);
            assert!(page.messages.len() <= LIMITS.messages);
            came.extend(page.messages.iter().map(|(message, tag)| (message.channel().to_string(), *tag)));
            done.extend(scan.take_finished());
            pages += 1;
        }
        (came, done, pages)
    }

    #[test]
    fn every_filter_gets_all_that_match_once_and_is_told() {
        let names = (0..700).map(|n| format!("{}/{n}", ["a", "b", "c", "$x"][n % 4]));
        let retained = store(names.clone());
        let filters = ["a/*", "*/5*", "#", "b/#", "*/9", "none/#", "*/*", "$x/*", "**"];
        let mut scan = Scan::default();
        for (text, tag) in filters.iter().zip(0..) {
            scan.want(&filter(text), tag, None, &retained);
        }
        let (mut came, mut done, _) = all(&mut scan, &retained);
        let mut expected = Vec::new();
        for (text, tag) in filters.iter().zip(0..) {
            let matches = |name: &String| filter(text).matches(&crate::Channel::parse(name).unwrap());
            expected.extend(names.clone().filter(matches).map(|name| (name, tag)));
        }
        came.sort();
        expected.sort();
        done.sort_unstable();
        assert_eq!(came, expected);
        assert_eq!(done, Vec::from_iter(0..9));
    }

    #[test]
    fn thousands_of_filters_that_look_in_vain_share_one_pass() {
        let retained = store((0..5_000).map(|n| format!("{n}/x")));
        let mut scan = Scan::default();
        for tag in 0..2_000 {
            scan.want(&filter(&format!("*/{tag}/*")), tag, None, &retained);
        }
        scan.want(&filter("*/x"), 2_000, None, &retained);
        let (came, done, pages) = all(&mut scan, &retained);
        assert_eq!((came.len(), done.len()), (5_000, 2_001));
        // Alone, each of them would have needed ten pages or more.
        assert!(pages < 1_000, "{pages}");
    }

    #[test]
    fn a_repeated_subscription_begins_again_and_is_in_once() {
        let retained = store((0..300).map(|n| format!("a/{n}")));
        let mut scan = Scan::default();
        scan.want(&filter("a/*"), 7, None, &retained);
        assert_eq!(scan.page(&retained, LIMITS, 0).messages.len(), 100);
        for _ in 0..1_000 {
            assert!(scan.holds(7));
            scan.want(&filter("a/*"), 7, None, &retained);
        }
        let (came, done, _) = all(&mut scan, &retained);
        assert_eq!((came.len(), done), (300, vec![7]));
    }

    #[test]
    fn what_is_forgotten_in_a_pass_does_not_come() {
        let retained = store((0..2_000).map(|n| format!("{n}/x")));
        let mut scan = Scan::default();
        for tag in 0..40 {
            scan.want(&filter(["*/y/*", "*/x", "*/y"][tag as usize % 3]), tag, None, &retained);
        }
        while scan.pass.as_ref().is_none_or(|pass| pass.found.is_empty()) {
            scan.page(&retained, Limits { messages: 10, ..LIMITS }, 0);
        }
        for tag in (0..40).filter(|tag| tag % 3 == 1 && *tag != 37) {
            scan.forget(tag);
        }
        let (came, mut done, _) = all(&mut scan, &retained);
        assert!(came.iter().all(|(_, tag)| *tag == 37) && came.len() > 1_000, "{}", came.len());
        done.sort_unstable();
        assert!(done.contains(&37) && !done.contains(&1), "{done:?}");
    }

    #[test]
    fn what_was_retained_after_the_head_does_not_come() {
        let retained = store((0..50).map(|n| format!("a/{n}")));
        let mut late = message("a/late", None);
        if let Some(late) = Arc::get_mut(&mut late) {
            late.offset = 9;
        }
        retained.set(late);
        let mut scan = Scan::default();
        scan.want(&filter("a/*"), 0, Some(crate::message::MessageId::new(0, 8).into()), &retained);
        scan.want(&filter("a/#"), 1, Some(crate::message::MessageId::new(0, 9).into()), &retained);
        let (came, ..) = all(&mut scan, &retained);
        assert_eq!(came.len(), 101);
    }
}
