//! Subscriptions that one packet made or ended, gathered until it is answered.

use std::collections::HashMap;
use std::sync::Arc;

use broker_core::SubscriberKey;
use parking_lot::Mutex;

use super::clients::Known;

/// An event names so many topics; what a packet has beyond that is in further ones. AWS lets a packet have 8.
const MAX_TOPICS: usize = 1_000;

/// The topics of an event may have so many bytes in JSON together; a single one may have more.
const MAX_BYTES: usize = 64 << 10;

/// Requests that are not answered yet, one of a client at a time.
pub(crate) struct Requests {
    max_bytes: usize,
    of: Mutex<HashMap<SubscriberKey, Gathered>>,
}

/// What is to be told of a client's subscriptions, in one event.
#[derive(Debug)]
pub(crate) struct Told<'a> {
    pub(crate) id: &'a str,
    pub(crate) known: &'a Known,
    /// `subscribed` or `unsubscribed`.
    pub(crate) kind: &'static str,
    /// As MQTT writes them, in the order of the packet.
    pub(crate) topics: Vec<String>,
}

struct Gathered {
    id: Arc<str>,
    known: Known,
    kind: &'static str,
    topics: Vec<String>,
    bytes: usize,
}

impl Requests {
    /// Events are to be publishable where a message may have so many bytes.
    pub(crate) fn new(max_message_bytes: usize) -> Self {
        // Half of it is left for what else is in an event.
        Self { max_bytes: MAX_BYTES.min(max_message_bytes / 2), of: Mutex::default() }
    }

    /// A request begins; its client is known by then.
    pub(crate) fn begin(&self, client: SubscriberKey, id: Arc<str>, known: Known) {
        let gathered = Gathered { id, known, kind: "", topics: Vec::new(), bytes: 0 };
        self.of.lock().entry(client).or_insert(gathered);
    }

    /// Its client is gone, and nothing of it is told.
    pub(crate) fn forget(&self, client: SubscriberKey) {
        self.of.lock().remove(&client);
    }

    /// Takes a topic into its client's request; what is gathered so far is told if it does not go with it. The topic comes
    /// back if there is no request.
    pub(crate) fn add(
        &self,
        client: SubscriberKey,
        kind: &'static str,
        topic: String,
        tell: impl Fn(Told<'_>),
    ) -> Option<String> {
        let mut of = self.of.lock();
        let Some(gathered) = of.get_mut(&client) else { return Some(topic) };
        if (gathered.kind, kind) == ("subscribed", "unsubscribed")
            && let Some(at) = gathered.topics.iter().rposition(|known| *known == topic)
        {
            // It was not granted in the end.
            gathered.bytes -= weight(&topic);
            gathered.topics.remove(at);
            return None;
        }
        let bytes = gathered.bytes + weight(&topic);
        if gathered.kind != kind || gathered.topics.len() >= MAX_TOPICS || bytes > self.max_bytes {
            gathered.tell(&tell);
            gathered.kind = kind;
        }
        gathered.bytes += weight(&topic);
        gathered.topics.push(topic);
        None
    }

    /// The request is answered, or its client has left: what it came to is told. Told under the lock, so that whoever finds
    /// no request afterwards comes behind it.
    pub(crate) fn end(&self, client: SubscriberKey, tell: impl Fn(Told<'_>)) {
        let mut of = self.of.lock();
        if let Some(mut gathered) = of.remove(&client) {
            gathered.tell(&tell);
        }
    }
}

impl Gathered {
    fn tell(&mut self, tell: &impl Fn(Told<'_>)) {
        self.bytes = 0;
        let topics = std::mem::take(&mut self.topics);
        if !topics.is_empty() {
            tell(Told { id: &self.id, known: &self.known, kind: self.kind, topics });
        }
    }
}

/// Bytes of a topic in a list of JSON, at most.
fn weight(topic: &str) -> usize {
    let escaped = topic.bytes().filter(|byte| *byte < 0x20).count() * 5;
    topic.len() + escaped + topic.matches(['"', '\\']).count() + "\"\",".len()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use broker_core::{Broker, Config, OutboxConfig};

    use super::*;

    struct Nobody;

    impl broker_core::Deliver for Nobody {
        fn deliver(&self, _: &broker_core::Delivery, _: &[u32], _: &mut broker_core::Sink<'_>) {}
    }

    /// What a request comes to in which these changes happen.
    fn told(
        max_message_bytes: usize,
        changes: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Vec<String> {
        let broker = Broker::new(Config::default());
        let key = broker.attach(Arc::new(Nobody), OutboxConfig::default()).key();
        let known = super::super::Clients::default().join("a", key, (1, None), 1_000);
        let events = RefCell::new(Vec::new());
        let tell = |told: Told<'_>| {
            let topics = match &*told.topics {
                topics if topics.len() > 4 => topics.len().to_string(),
                topics => topics.join(" "),
            };
            events.borrow_mut().push(format!("{} {topics}", told.kind));
        };
        let requests = Requests::new(max_message_bytes);
        requests.begin(key, "a".into(), known);
        for (kind, topic) in changes {
            assert_eq!(requests.add(key, kind, topic, tell), None);
        }
        requests.end(key, tell);
        requests.end(key, tell);
        assert!(requests.of.lock().is_empty());
        assert_eq!(requests.add(key, "subscribed", "alone".to_owned(), tell), Some("alone".to_owned()));
        events.into_inner()
    }

    fn changes(text: &str) -> Vec<(&'static str, String)> {
        let kind = |word: &str| if word.starts_with('+') { "subscribed" } else { "unsubscribed" };
        text.split_whitespace().map(|word| (kind(word), word[1..].to_owned())).collect()
    }

    #[tokio::test]
    async fn a_request_is_told_as_one() {
        for (happened, expected) in [
            ("+a +b +c", &["subscribed a b c"][..]),
            ("-a -b", &["unsubscribed a b"]),
            // The second was not settled, and is none.
            ("+a +b -b +c", &["subscribed a c"]),
            ("+a -a", &[]),
            // An operator's, meanwhile.
            ("-a +b -c", &["unsubscribed a", "subscribed b", "unsubscribed c"]),
            ("+a -b +c", &["subscribed a", "unsubscribed b", "subscribed c"]),
        ] {
            assert_eq!(told(4 << 20, changes(happened)), expected, "{happened}");
        }
    }

    #[tokio::test]
    async fn an_event_is_never_larger_than_it_may_be() {
        let many = (0..2_005).map(|number| ("subscribed", number.to_string()));
        let expected = ["subscribed 1000", "subscribed 1000", "subscribed 5"];
        assert_eq!(told(4 << 20, many), expected);
        let long = |count: usize, length: usize| (0..count).map(move |_| ("subscribed", "x".repeat(length)));
        assert_eq!(told(4 << 20, long(30, 3_000)), ["subscribed 21", "subscribed 9"]);
        assert_eq!(told(4 << 20, long(3, 65_535)).len(), 3);
        assert_eq!(told(2_000, long(30, 97)), ["subscribed 10"; 3]);
        let escaped = (0..30).map(|_| ("subscribed", "\"".repeat(97)));
        assert_eq!(told(2_000, escaped), ["subscribed 5"; 6]);
    }
}
