//! What nodes ask and tell each other beside messages.

#[allow(dead_code, missing_docs, unreachable_pub, reason = "shared by the tests")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use broker_core::Answer;
use bytes::Bytes;
use cluster::{Peer, Service};
use parking_lot::Mutex;

use self::support::{Nats, Node, soon};

/// Answers with a word of its own, unless it is asked to be silent.
#[derive(Default)]
struct Words {
    own: &'static str,
    heard: Mutex<Vec<String>>,
    questions: AtomicUsize,
}

impl Words {
    fn new(own: &'static str) -> Arc<Self> {
        Arc::new(Self { own, ..Self::default() })
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().clone()
    }

    async fn until(&self, what: &str) {
        soon(async {
            while !self.heard().iter().any(|heard| heard == what) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

impl Service for Words {
    fn answer(&self, from: &Peer, question: Bytes) -> Answer<'static, Option<Vec<u8>>> {
        self.questions.fetch_add(1, SeqCst);
        let answer = format!("{} to {}", self.own, from.name).into_bytes();
        match &question[..] {
            b"say nothing" => Answer::later(std::future::pending()),
            b"too much" => Answer::now(Some(vec![0; cluster::Control::MAX_ANSWER_BYTES + 1])),
            b"cannot" => Answer::now(None),
            _ => Answer::now(Some(answer)),
        }
    }

    fn hear(&self, from: &Peer, notice: Bytes) {
        self.heard.lock().push(format!("{}: {}", from.name, String::from_utf8_lossy(&notice)));
    }

    fn came(&self, node: &Peer) {
        self.heard.lock().push(format!("{} came", node.name));
    }

    fn left(&self, node: &Peer) {
        self.heard.lock().push(format!("{} left", node.name));
    }
}

/// Asks who is there whenever somebody comes or leaves.
struct Counts {
    control: cluster::Control,
    seen: Mutex<Vec<usize>>,
}

impl Service for Counts {
    fn came(&self, _: &Peer) {
        self.seen.lock().push(self.control.peers().len());
    }

    fn left(&self, _: &Peer) {
        self.seen.lock().push(self.control.peers().len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hears_that_a_node_has_left_may_ask_who_is_there() {
    let Some(nats) = Nats::start(&[]) else { return };
    let here = Node::start(&nats, "n1").await;
    let control = here.cluster.control();
    let counts = Arc::new(Counts { control: control.clone(), seen: Mutex::default() });
    control.serve("counts", Arc::clone(&counts) as _);
    for _ in 0..2 {
        let there = Node::start(&nats, "n2").await;
        there.until(|stats| stats.nodes == 2).await;
        here.until(|stats| stats.nodes == 2).await;
        there.cluster.leave().await;
        here.until(|stats| stats.nodes == 1).await;
    }
    soon(async {
        while counts.seen.lock().len() < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(*counts.seen.lock(), [1, 0, 1, 0]);
}

/// A node that knows `others` nodes already.
async fn node(nats: &Nats, name: &str, words: &Arc<Words>) -> Node {
    let node = Node::start(nats, name).await;
    node.cluster.control().serve("words", Arc::clone(words) as _);
    node
}

fn texts(answers: &cluster::Answers) -> Vec<String> {
    let text = |(peer, answer): &(Peer, Bytes)| format!("{}: {}", peer.name, String::from_utf8_lossy(answer));
    let mut texts: Vec<String> = answers.answers.iter().map(text).collect();
    texts.sort();
    texts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_answer_and_who_cannot_is_silent() {
    let Some(nats) = Nats::start(&[]) else { return };
    let words = [Words::new("one"), Words::new("two"), Words::new("three")];
    let one = node(&nats, "n1", &words[0]).await;
    let control = one.cluster.control();
    let alone = control.ask_all("words", b"x", |_, _| false).await.unwrap();
    assert_eq!((texts(&alone), alone.silent.len()), (vec![], 0));
    let two = node(&nats, "n2", &words[1]).await;
    let three = node(&nats, "n3", &words[2]).await;
    one.until(|stats| stats.nodes == 3 && stats.connected).await;
    two.until(|stats| stats.nodes == 3).await;
    three.until(|stats| stats.nodes == 3).await;

    let answers = soon(control.ask_all("words", b"x", |_, _| false)).await.unwrap();
    assert_eq!(texts(&answers), ["n2: two to n1", "n3: three to n1"]);
    assert!(answers.is_whole());
    assert_eq!(words[0].questions.load(SeqCst), 0, "nobody asks itself");

    // One that is enough is not followed by others, who then are not silent.
    let first = soon(control.ask_all("words", b"x", |_, _| true)).await.unwrap();
    assert_eq!((first.answers.len(), first.is_whole()), (1, true));

    let peer = control.peers().into_iter().find(|peer| &*peer.name == "n3").unwrap();
    let answer = soon(control.ask_one("words", &peer, b"x")).await.unwrap();
    assert_eq!(answer.as_deref(), Some(&b"three to n1"[..]));

    for (service, question) in
        [("words", "say nothing"), ("words", "too much"), ("words", "cannot"), ("nobody's", "x")]
    {
        let answers = soon(control.ask_all(service, question.as_bytes(), |_, _| false)).await.unwrap();
        assert_eq!((answers.answers.len(), answers.silent.len()), (0, 2), "{question}");
        assert!(!answers.is_whole());
    }
    assert_eq!(one.cluster.stats().silent, 2, "those who said nothing at all");

    let large = vec![0; control.max_bytes() + 1];
    assert_eq!(control.ask_all("words", &large, |_, _| false).await.unwrap_err().max, control.max_bytes());
    let fits = soon(control.ask_all("words", &large[1..], |_, _| false)).await.unwrap();
    assert_eq!(fits.answers.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notices_come_in_order_and_nodes_come_and_leave_once() {
    let Some(nats) = Nats::start(&[]) else { return };
    let words = [Words::new("one"), Words::new("two")];
    let one = node(&nats, "n1", &words[0]).await;
    let two = node(&nats, "n2", &words[1]).await;
    words[0].until("n2 came").await;
    words[1].until("n1 came").await;
    for number in 0..200 {
        two.cluster.control().tell("words", number.to_string().as_bytes()).await.unwrap();
    }
    words[0].until("n2: 199").await;
    two.cluster.leave().await;
    words[0].until("n2 left").await;
    let mut expected = vec!["n2 came".to_owned()];
    expected.extend((0..200).map(|number| format!("n2: {number}")));
    expected.push("n2 left".to_owned());
    assert_eq!(words[0].heard(), expected);
    assert_eq!(words[1].heard(), ["n1 came"], "nobody tells itself");
    assert_eq!(one.cluster.stats().nodes, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_counted_and_passed_over() {
    let Some(nats) = Nats::start(&[]) else { return };
    let words = Words::new("one");
    let one = node(&nats, "n1", &words).await;
    one.until(|stats| stats.connected).await;
    let other = async_nats::connect(nats.url()).await.unwrap();
    // Of another version, too short, and of no kind.
    for frame in [&b"\x02\x01aaaaaaaabbbbbbbb\x00"[..], b"\x01", b"\x01\x09aaaaaaaabbbbbbbb\x00"] {
        other.publish("fw.c.q", Bytes::from_static(frame)).await.unwrap();
    }
    other.flush().await.unwrap();
    one.until(|stats| stats.unreadable == 3).await;
    assert_eq!(words.questions.load(SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_an_answer_says_that_it_is_not_whole() {
    let Some(mut nats) = Nats::start(&[]) else { return };
    let words = [Words::new("one"), Words::new("two")];
    let one = node(&nats, "n1", &words[0]).await;
    let _two = node(&nats, "n2", &words[1]).await;
    one.until(|stats| stats.nodes == 2 && stats.connected).await;
    nats.kill();
    one.until(|stats| !stats.connected).await;
    let answers = soon(one.cluster.control().ask_all("words", b"x", |_, _| false)).await.unwrap();
    assert!(answers.answers.is_empty() && !answers.is_connected && !answers.is_whole());
}
