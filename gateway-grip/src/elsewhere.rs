//! Other servers of a cluster: the key of their seals, items that only instruct clients, and ids that were published there.
//!
//! Messages go between servers by themselves. Here is what is not in them: a server that joins is told by what key others
//! seal; an item without a message (`close`, `hint`, `refresh`) is told to all, as its clients may be anywhere; and where an
//! item waits for another that did not come here, others are asked whether it came there.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use broker_core::{Answer, Broker, Channel, Filter, HistoryQuery, Order};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use websocket_over_http::{believe, id_of, seal_key};

/// The other servers, as whoever connects them brings what is to be said.
pub trait Nodes: Send + Sync {
    /// Tells all others something, in the order of calls, as far as they are there. May not block.
    fn tell(&self, notice: Vec<u8>);

    /// Asks all others; what they answered in time.
    fn ask(&self, question: Vec<u8>) -> Answer<'static, Vec<Vec<u8>>>;
}

/// Most bytes of items of others that wait for their turn, each counted with a little more. What comes above it is not done,
/// and that is logged: as with messages, what nobody here takes is lost to this server alone.
const MAX_TOLD_BYTES: usize = 16 << 20;
const OVERHEAD: usize = 128;

/// Most ids of one question.
pub(crate) const MAX_ASKED: usize = 1_000;

/// How long nothing is asked after a question about the same: at first and at most.
pub(crate) const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// How long an item of others waits for the message before it, which comes another way; and where nobody knows which one
/// that is.
const BEHIND: Duration = Duration::from_millis(500);
const BEHIND_ANYTHING: Duration = Duration::from_millis(100);

/// How long what was published elsewhere is given to be on its way to others, where nobody listens here who would see it.
const ON_ITS_WAY: Duration = Duration::from_millis(20);

/// What one server tells the others.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Notice {
    /// The key by which it seals.
    Key([u8; 32]),
    /// An item that is for clients of a gateway alone, and the id of the one before it.
    Item { text: String, after: Option<String> },
}

/// Ids that items wait for, by channel; answered by the places of those that were published.
type Question = Vec<(String, String)>;

/// An item of another server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) text: String,
    /// The id of the one before it.
    pub(crate) after: Option<String>,
    /// When it came: from then on it waits for that one, so that those behind it wait no longer than it does.
    pub(crate) since: Instant,
}

#[derive(Default)]
struct Waiting {
    told: VecDeque<Told>,
    bytes: usize,
}

impl Waiting {
    fn pop(&mut self) -> Option<Told> {
        let told = self.told.pop_front()?;
        self.bytes -= told.text.len() + OVERHEAD;
        Some(told)
    }
}

/// What is known of other servers.
#[derive(Default)]
pub(crate) struct Elsewhere {
    nodes: OnceLock<Arc<dyn Nodes>>,
    waiting: Mutex<Waiting>,
    more: Notify,
    /// Whether somebody asks what items wait for, and that there is something new to ask.
    asking: Mutex<bool>,
    pub(crate) awaited: Notify,
}

impl Elsewhere {
    /// Whether the caller is to ask what items wait for, until [`has_asked`](Self::has_asked): others do, or nobody is there.
    pub(crate) fn is_to_ask(&self) -> bool {
        self.nodes.get().is_some() && !std::mem::replace(&mut *self.asking.lock(), true)
    }

    /// Nothing is asked any more, if `is_over` says so while nobody begins.
    pub(crate) fn has_asked(&self, is_over: impl FnOnce() -> bool) -> bool {
        let mut asking = self.asking.lock();
        let is_over = is_over();
        *asking = !is_over;
        is_over
    }

    /// From now on there are others; whether there were none before.
    pub(crate) fn join(&self, nodes: Arc<dyn Nodes>) -> bool {
        self.nodes.set(nodes).is_ok()
    }

    /// The next item of others. Returns now and then without any, for whoever may be gone.
    pub(crate) async fn next_told(&self) -> Option<Told> {
        let told = self.waiting.lock().pop();
        if told.is_some() {
            return told;
        }
        _ = tokio::time::timeout(Duration::from_secs(5), self.more.notified()).await;
        self.waiting.lock().pop()
    }

    fn tell(&self, notice: &Notice) {
        if let Some(nodes) = self.nodes.get()
            && let Ok(notice) = serde_json::to_vec(notice)
        {
            nodes.tell(notice);
        }
    }

    /// Tells others how items are sealed here.
    pub(crate) fn tell_key(&self) {
        if let Some(key) = seal_key() {
            self.tell(&Notice::Key(key));
        }
    }

    /// Has an item done by the others too, behind the item of this id.
    pub(crate) fn tell_item(&self, text: &str, after: Option<String>) {
        self.tell(&Notice::Item { text: text.to_owned(), after });
    }

    /// The answer to a question of another server, by whoever knows what was published here; `None` to what is none.
    pub(crate) fn answer(question: &[u8], has_sent: impl Fn(&str, &str) -> bool) -> Option<Vec<u8>> {
        let wanted: Question = serde_json::from_slice(question).ok()?;
        let sent = wanted.iter().enumerate().filter(|(_, (channel, id))| has_sent(channel, id));
        serde_json::to_vec(&sent.map(|(place, _)| place).collect::<Vec<usize>>()).ok()
    }

    /// Which of these ids were published elsewhere.
    pub(crate) async fn ask(&self, mut wanted: Question) -> Question {
        let Some(nodes) = self.nodes.get() else { return Vec::new() };
        let Ok(question) = serde_json::to_vec(&wanted) else { return Vec::new() };
        let answers = nodes.ask(question).await;
        let known = answers.iter().filter_map(|answer| serde_json::from_slice::<Vec<usize>>(answer).ok());
        let known: Vec<usize> = known.flatten().collect();
        let mut place = 0..;
        wanted.retain(|_| place.next().is_some_and(|place: usize| known.contains(&place)));
        wanted
    }

    /// Whether there is anybody to ask.
    pub(crate) fn is_joined(&self) -> bool {
        self.nodes.get().is_some()
    }

    /// Another server tells something. What is none of this version's is nothing.
    pub(crate) fn hear(&self, notice: &[u8]) {
        match serde_json::from_slice(notice) {
            Ok(Notice::Key(key)) => believe(key),
            Ok(Notice::Item { text, after }) => {
                let mut waiting = self.waiting.lock();
                let bytes = waiting.bytes + text.len() + OVERHEAD;
                if bytes > MAX_TOLD_BYTES {
                    drop(waiting);
                    let max_bytes = MAX_TOLD_BYTES;
                    tracing::warn!(target: "fanwire::gateway", max_bytes, "more items of other nodes wait than may");
                    return;
                }
                waiting.bytes = bytes;
                waiting.told.push_back(Told { text, after, since: Instant::now() });
                drop(waiting);
                self.more.notify_one();
            }
            Err(_) => {}
        }
    }
}

/// Waits until a message with this id has come, and not for long after `since`: a moment where messages of the channel do not
/// come here, or nobody knows which one it is.
pub(crate) async fn until_behind(broker: &Broker, channel: &Channel, id: Option<&str>, since: Instant) {
    const FEW: usize = 16;
    let is_heard = || !broker.subscribers_of(channel).is_empty();
    let until = |time: Duration| tokio::time::sleep_until((since + time).into());
    let Some(id) = id else { return until(BEHIND_ANYTHING).await };
    if !is_heard() {
        return until(ON_ITS_WAY).await;
    }
    let mut pause = Duration::from_millis(2);
    while since.elapsed() < BEHIND && is_heard() {
        let mut query = HistoryQuery::default();
        (query.limit, query.order) = (FEW, Order::Newest);
        let history = broker.read_history(&Filter::literal(channel.clone()), query).await;
        if history.is_ok_and(|history| history.messages.iter().any(|message| id_of(message) == Some(id))) {
            return;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One other server, and what it was told.
    #[derive(Default)]
    struct Other {
        told: Mutex<Vec<Vec<u8>>>,
    }

    impl Nodes for Other {
        fn tell(&self, notice: Vec<u8>) {
            self.told.lock().push(notice);
        }

        fn ask(&self, question: Vec<u8>) -> Answer<'static, Vec<Vec<u8>>> {
            let answer = Elsewhere::answer(&question, |channel, id| channel == "a" && id != "1");
            Answer::now(vec![b"nonsense".to_vec(), answer.unwrap()])
        }
    }

    #[tokio::test]
    async fn what_one_tells_the_other_hears_and_what_is_asked_is_answered() {
        let (here, other) = (Elsewhere::default(), Arc::new(Other::default()));
        let pair = |channel: &str, id: &str| (channel.to_owned(), id.to_owned());
        assert!(!here.is_joined() && here.ask(vec![pair("a", "2")]).await.is_empty());
        here.tell_item("nobody hears it", None);
        assert!(here.join(other.clone()) && here.is_joined());
        let asked = vec![pair("a", "1"), pair("a", "2"), pair("b", "2"), pair("a", "3")];
        assert_eq!(here.ask(asked).await, [pair("a", "2"), pair("a", "3")]);
        here.tell_key();
        here.tell_item("{}", Some("7".to_owned()));
        let there = Elsewhere::default();
        let told = std::mem::take(&mut *other.told.lock());
        assert_eq!(told.len(), 2);
        for notice in told.iter().chain([&b"{".to_vec(), &b"{\"later\":1}".to_vec()]) {
            there.hear(notice);
        }
        let heard = there.next_told().await.unwrap();
        assert_eq!((&*heard.text, heard.after.as_deref()), ("{}", Some("7")));
        assert!(there.waiting.lock().told.is_empty() && there.waiting.lock().bytes == 0);
        let large = serde_json::to_vec(&Notice::Item { text: "x".repeat(1 << 20), after: None }).unwrap();
        for _ in 0..17 {
            there.hear(&large);
        }
        assert_eq!(there.waiting.lock().told.len(), 15, "each counts a little more");
    }

    #[test]
    fn one_asks_at_a_time() {
        let here = Elsewhere::default();
        assert!(!here.is_to_ask(), "there is nobody");
        here.join(Arc::new(Other::default()));
        assert!(here.is_to_ask() && !here.is_to_ask());
        assert!(!here.has_asked(|| false) && !here.is_to_ask());
        assert!(here.has_asked(|| true) && here.is_to_ask());
    }
}
