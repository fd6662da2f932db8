//! Whose rights count, when a session changes hands or its client shows again who it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel as pair};
use std::sync::{Arc, Mutex};

use broker_core::{
    Action, Authenticated, Authenticator, Broker, Channel, Credentials, Deliver, Delivery, Filter,
    OutboxConfig, Principal, Publish, Qos, Rights, Rule, Sink, Start, Subscribed, Subscriber,
};
use front_mqtt::{Config, Exchange, Front, Mechanism, Step, Stepping};

use crate::client::*;
use crate::support::Server;

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

fn message(channel: &str, payload: &str) -> Publish {
    Publish::new(Channel::parse(channel).unwrap(), payload.to_owned())
}

/// Holds the lane at each message until it is let go.
struct Held(Mutex<(Sender<()>, Receiver<()>)>);

impl Deliver for Held {
    fn deliver(&self, _: &Delivery, _: &[u32], _: &mut Sink<'_>) {
        let held = self.0.lock().unwrap();
        held.0.send(()).unwrap();
        held.1.recv_timeout(SOON).unwrap();
    }
}

/// The only lane of a broker, which stands still from [`Lane::hold`] to [`Lane::let_go`].
struct Lane {
    broker: Broker,
    come: Receiver<()>,
    let_go: Sender<()>,
    _holder: Subscriber,
}

impl Lane {
    fn new() -> Self {
        let mut config = broker_core::Config::default();
        config.lanes = Some(1);
        let broker = Broker::new(config);
        let ((has_come, come), (let_go, gone)) = (pair(), pair());
        let holder = broker.attach(Arc::new(Held(Mutex::new((has_come, gone)))), OutboxConfig::default());
        holder.subscribe(&filter("$hold"), 0, Start::Live).unwrap();
        Self { broker, come, let_go, _holder: holder }
    }

    fn hold(&self) {
        self.broker.publish(message("$hold", "")).unwrap();
        self.come.recv_timeout(SOON).unwrap();
    }

    fn let_go(&self) {
        self.let_go.send(()).unwrap();
    }
}

/// Everybody may hear everything; once it is told so, but for `secret/#`.
#[derive(Clone, Default)]
struct Narrowing(Arc<AtomicBool>);

impl Narrowing {
    fn principal(&self) -> Principal {
        let mut rights = Rights::all();
        if self.0.load(Ordering::Relaxed) {
            rights = rights.deny(Rule::new([Action::Subscribe], filter("secret/#")));
        }
        Principal::anonymous(rights)
    }
}

impl Authenticator for Narrowing {
    fn authenticate<'a>(&'a self, _: Credentials<'a>) -> Authenticated<'a> {
        Authenticated::now(Ok(self.principal()))
    }
}

impl Mechanism for Narrowing {
    fn name(&self) -> &str {
        "NARROW"
    }

    fn begin(&self, _: &str) -> Box<dyn Exchange> {
        Box::new(self.clone())
    }
}

impl Exchange for Narrowing {
    fn step<'a>(&'a mut self, _: &'a [u8]) -> Stepping<'a> {
        Box::pin(async move { Step::Done { principal: self.principal(), data: Vec::new() } })
    }
}

/// The topics of what comes until nothing does.
async fn topics(client: &mut Client) -> Vec<String> {
    let mut topics = Vec::new();
    while let Some(raw) = client.try_read(QUIET).await {
        let end = 2 + usize::from(u16::from_be_bytes([raw.body[0], raw.body[1]]));
        assert_eq!(raw.first >> 4, 3, "{raw:x?}");
        topics.push(String::from_utf8(raw.body[2..end].to_vec()).unwrap());
    }
    topics
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_lane_is_not_for_a_new_client_without_the_right_to_it() {
    for level in [4, 5] {
        for (filters, qos) in
            [(&[("#", 0)][..], Qos::AtMostOnce), (&[("#", 1), ("secret/1", 1)], Qos::AtLeastOnce)]
        {
            let (lane, rights) = (Lane::new(), Narrowing::default());
            let server = Server::on(lane.broker.clone(), Config::default(), Arc::new(rights.clone())).await;
            let kept = connect(level, "s", false, 0, &[0x11, 0, 0, 0, 100]);
            let (mut client, _) = Client::connected_with(server.address, &kept).await;
            client.subscribe(level, filters).await;
            lane.hold();
            for channel in ["secret/1", "open/1"] {
                server.broker.publish(message(channel, "before").qos(qos)).unwrap();
            }
            rights.0.store(true, Ordering::Relaxed);
            let (mut next, present) = Client::connected_with(server.address, &kept).await;
            assert!(present);
            for channel in ["secret/1", "open/2"] {
                server.broker.publish(message(channel, "after").qos(qos)).unwrap();
            }
            lane.let_go();
            assert_eq!(topics(&mut next).await, ["open/1", "open/2"], "{level} {qos:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_old_rights_allowed_comes_before_the_answer_to_new_ones_and_nothing_of_it_after() {
    let (lane, rights) = (Lane::new(), Narrowing::default());
    let front = Front::new(lane.broker.clone(), Arc::new(rights.clone()), Config::default());
    let front = front.with_mechanism(Arc::new(rights.clone()));
    let server = Server::serving(lane.broker.clone(), front).await;
    let method = [&[0x15][..], &string("NARROW")].concat();
    let (mut client, _) = Client::connected_with(server.address, &connect(5, "c", true, 0, &method)).await;
    client.subscribe(5, &[("#", 0)]).await;
    lane.hold();
    server.broker.publish(message("secret/1", "before")).unwrap();
    rights.0.store(true, Ordering::Relaxed);
    client.send(&packet(0xF0, &[&[0x19, method.len() as u8], &method])).await;
    client.expect_quiet().await;
    server.broker.publish(message("secret/2", "after")).unwrap();
    server.broker.publish(message("open/2", "after")).unwrap();
    lane.let_go();
    let came = [client.read().await, client.read().await];
    assert_eq!((came[0].first, &came[0].body[2..10]), (0x30, &b"secret/1"[..]));
    // The answer comes once the lane has got there, which is before or after what was published meanwhile.
    assert!(came.iter().all(|raw| !raw.body.windows(8).any(|part| part == b"secret/2")));
    let last = client.read().await;
    let mut kinds = [came[1].first, last.first];
    kinds.sort_unstable();
    assert_eq!(kinds, [0x30, 0xF0], "{came:x?} {last:x?}");
    server.broker.publish(message("secret/3", "later")).unwrap();
    client.expect_quiet().await;
}

#[tokio::test]
async fn a_session_that_was_taken_up_again_gets_all_retained_messages() {
    let server = Server::start().await;
    for n in 0..3_000 {
        server.broker.publish(message(&format!("r/{n}"), "x").retain(true)).unwrap();
    }
    for (id, goodbye) in [("goodbye", Some(DISCONNECT)), ("taken over", None)] {
        let kept = connect(4, id, false, 0, &[]);
        let (mut first, _) = Client::connected_with(server.address, &kept).await;
        if let Some(goodbye) = goodbye {
            first.send(goodbye).await;
            first.expect_closed().await;
        }
        let (mut client, present) = Client::connected_with(server.address, &kept).await;
        assert!(present);
        first.expect_closed().await;
        assert_eq!(client.subscribe(4, &[("r/+", 0)]).await, [0]);
        assert_eq!(topics(&mut client).await.len(), 3_000, "{id}");
    }
}

#[tokio::test]
async fn an_operator_cannot_show_a_client_what_its_rights_deny() {
    let rule = |text: &str| Rule::new([Action::Subscribe], filter(text));
    let rights = Rights::none().allow(rule("own/#")).deny(rule("*/secret/#"));
    let rights = Arc::new(broker_core::Anonymous(Principal::anonymous(rights)));
    let server = Server::with_rights(Config::default(), rights).await;
    let mut client = Client::connected(server.address, 4, "c").await;
    assert_eq!(client.subscribe(4, &[("other/#", 0)]).await, [0x80]);
    let (_, me) = server.broker.connections(None, 2).pop().unwrap();
    assert_eq!(me.subscribe(&filter("other/#")), Ok(Subscribed::ADDED));
    for channel in ["other/secret", "other/1", "own/1"] {
        server.broker.publish(message(channel, "x")).unwrap();
    }
    assert_eq!(topics(&mut client).await, ["other/1"]);
}
