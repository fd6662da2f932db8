//! A mosquitto whose bridge comes to this server, as its configuration makes it by default: across cuts of the wire and
//! restarts of either side nothing at QoS 1 is lost in either direction that a session on either side was to keep.
//!
//! Where there is no mosquitto (Debian's package of that name) the tests say so and check nothing.
//! `FW_TEST_BRIDGE_CUTS` cuts (default 6) while `FW_TEST_BRIDGE_MESSAGES` messages (default 2,000) flow each way.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use broker_core::Qos;
use fanwire::{Broker, Channel, Filter, Publish, Subscription};
use rumqttc::QoS;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::proxy::Proxy;
use crate::support::mqtt::Client;
use crate::support::{TestServer, within};

/// A reconnection takes mosquitto a few seconds, and there are several.
const PATIENCE: Duration = Duration::from_secs(120);

/// What `bridge_protocol_version` may be. The first is the default.
const VERSIONS: [&str; 2] = ["mqttv311", "mqttv50"];

/// A mosquitto with one bridge: `out/#` goes to the server, `in/#` comes from it, `both/#` does both.
struct Mosquitto {
    binary: PathBuf,
    folder: tempfile::TempDir,
    address: SocketAddr,
    child: Child,
}

impl Mosquitto {
    /// `None` if there is none on this machine.
    async fn start(version: &str, server: SocketAddr) -> Option<Self> {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&folders)
            .chain([PathBuf::from("/usr/sbin")])
            .map(|folder| folder.join("mosquitto"))
            .find(|path| path.is_file());
        let Some(binary) = found else {
            println!("there is no mosquitto here: nothing is checked");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let place = folder.path().display();
        // Only the waits are not the defaults (with one number mosquitto 2.0 keeps those it has), and what the tests
        // themselves queue.
        let text = format!(
            "user root\nlistener {} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n\
             persistence true\npersistence_location {place}/\n\
             connection fanwire\naddress {server}\nbridge_protocol_version {version}\nrestart_timeout 1 2\n\
             topic out/# out 1\ntopic in/# in 1\ntopic both/# both 1\n",
            address.port(),
        );
        std::fs::write(folder.path().join("mosquitto.conf"), text).expect("written");
        let child = run(&binary, &folder).await;
        let mosquitto = Self { binary, folder, address, child };
        mosquitto.listens().await;
        Some(mosquitto)
    }

    async fn listens(&self) {
        within(async {
            while TcpStream::connect(self.address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// As an operator's restart does it: what it holds is written down first.
    async fn stop(&mut self) {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).expect("it runs");
        kill_process(id, Signal::TERM).expect("it can be signalled");
        within(self.child.wait()).await.expect("it ends");
    }

    async fn start_again(&mut self) {
        self.child = run(&self.binary, &self.folder).await;
        self.listens().await;
    }

    /// A client whose session mosquitto keeps.
    async fn client(&self, id: &str) -> Client {
        Client::connect_with(self.address, id, |options| {
            options.set_clean_session(false);
        })
        .await
    }
}

async fn run(binary: &PathBuf, folder: &tempfile::TempDir) -> Child {
    Command::new(binary)
        .arg("-c")
        .arg(folder.path().join("mosquitto.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("mosquitto runs")
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn subscribe(broker: &Broker, filter: &str) -> Subscription {
    let mut options = broker_core::SubscribeOptions::default();
    options.outbox = {
        let mut config = broker_core::OutboxConfig::default();
        config.max_messages = 100_000;
        config
    };
    broker.subscribe_with(&[Filter::parse(filter).expect("a filter")], options).expect("taken")
}

fn publish(broker: &Broker, channel: &str, n: usize) {
    let channel = Channel::parse(channel).expect("a channel");
    broker.publish(Publish::new(channel, n.to_string()).qos(Qos::AtLeastOnce)).expect("taken");
}

/// Waits for the number that comes last; each one before it must have come, the first time in order.
async fn expect_all(what: &str, numbers: Range<usize>, mut next: impl AsyncFnMut() -> String) {
    let (mut due, count) = (numbers.start, numbers.end);
    while due < count {
        let text = tokio::time::timeout(PATIENCE, next()).await;
        let text = text.unwrap_or_else(|_| panic!("{what}: {due} of {count} never came"));
        let n: usize = text.parse().expect("a number");
        assert!(n <= due, "{what}: {n} came where {due} was due");
        due = due.max(n + 1);
    }
}

async fn payload(subscription: &mut Subscription) -> String {
    let message = subscription.message().await.expect("the broker lives");
    String::from_utf8(message.payload().to_vec()).expect("text")
}

/// Waits until the bridge has subscribed to its two filters, beside the test's own subscription.
async fn bridge_is_there(server: &TestServer) {
    let there = async {
        while server.broker.stats().subscriptions != 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, there).await.expect("the bridge comes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_of_mosquittos_loses_nothing_over_cuts() {
    for version in VERSIONS {
        let (cuts, messages) = (setting("FW_TEST_BRIDGE_CUTS", 6), setting("FW_TEST_BRIDGE_MESSAGES", 2_000));
        let server = TestServer::start().await;
        let mut arriving = subscribe(&server.broker, "out/#");
        // A message is some 30 bytes each way, with its acknowledgement: more cuts fit than are wanted.
        let bytes = 1..(messages as u64 * 20 / cuts as u64).max(100);
        let proxy = Proxy::start(server.mqtt, cuts, bytes.clone(), bytes, 2).await;
        let Some(mosquitto) = Mosquitto::start(version, proxy.address).await else { return };
        let mut client = mosquitto.client("here").await;
        client.subscribe("in/#", QoS::AtLeastOnce).await;
        bridge_is_there(&server).await;
        // In version 5 mosquitto asks for a session that ends with the connection (its CONNECT has no session expiry):
        // what is published here while it is cut off is not for it. All the other times nothing is lost either.
        let keeps_its_session = version != "mqttv50";
        let heard = Arc::new(AtomicUsize::new(0));
        let inward = tokio::spawn({
            let (broker, heard) = (server.broker.clone(), heard.clone());
            async move {
                for n in 0..messages {
                    // So that the session's queue stays within its bound while the bridge is away.
                    while n >= heard.load(Ordering::Relaxed) + 400 {
                        if !keeps_its_session {
                            publish(&broker, "in/n", n - 1);
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    publish(&broker, "in/n", n);
                }
                while !keeps_its_session && heard.load(Ordering::Relaxed) < messages {
                    publish(&broker, "in/n", messages - 1);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        let outward = client.client.clone();
        let outward = tokio::spawn(async move {
            for n in 0..messages {
                outward.publish("out/n", QoS::AtLeastOnce, false, n.to_string()).await.expect("queued");
            }
        });
        let hear_all = async {
            while heard.load(Ordering::Relaxed) < messages {
                let due = heard.load(Ordering::Relaxed);
                let n: usize = client.payload_within(PATIENCE).await.parse().expect("a number");
                assert!(n <= due || !keeps_its_session, "in: {n} came where {due} was due");
                heard.fetch_max(n + 1, Ordering::Relaxed);
            }
        };
        tokio::join!(expect_all("out", 0..messages, async || payload(&mut arriving).await), hear_all);
        inward.await.expect("it publishes");
        outward.await.expect("it publishes");
        // What is lost with a session does not flow, and is not cut.
        let cuts = if keeps_its_session { cuts..=cuts } else { 1..=cuts };
        assert!(cuts.contains(&proxy.cuts()), "too few bytes flowed to be cut");
        println!("{version}: {messages} messages each way over {} cuts", proxy.cuts());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bridge_of_mosquittos_outlives_restarts_of_either_side() {
    const COUNT: usize = 200;
    for version in VERSIONS {
        let server = TestServer::start().await;
        let (http, mqtt) = (server.http, server.mqtt);
        let mut arriving = subscribe(&server.broker, "out/#");
        let Some(mut mosquitto) = Mosquitto::start(version, mqtt).await else { return };
        let mut client = mosquitto.client("here").await;
        client.subscribe("in/#", QoS::AtLeastOnce).await;
        bridge_is_there(&server).await;
        for n in 0..COUNT {
            client.publish("out/n", QoS::AtLeastOnce, &n.to_string()).await;
        }
        expect_all("out", 0..COUNT, async || payload(&mut arriving).await).await;

        // This server goes and comes back; what mosquitto was given meanwhile waits there.
        drop(arriving);
        server.stop().await;
        for n in 0..COUNT {
            client.publish("out/n", QoS::AtLeastOnce, &n.to_string()).await;
        }
        let server = TestServer::with(|config| {
            config.http = Some(http);
            config.mqtt = Some(mqtt);
        })
        .await;
        let mut arriving = subscribe(&server.broker, "out/#");
        expect_all("out after our restart", 0..COUNT, async || payload(&mut arriving).await).await;
        bridge_is_there(&server).await;
        (0..COUNT).for_each(|n| publish(&server.broker, "in/n", n));
        expect_all("in after our restart", 0..COUNT, async || client.payload().await).await;

        // Mosquitto goes and comes back; what this server was given meanwhile waits here, unless the bridge's session ended
        // with its connection: so it does in version 5.
        mosquitto.stop().await;
        client.ended().await;
        let keeps_its_session = version != "mqttv50";
        if keeps_its_session {
            (COUNT..2 * COUNT).for_each(|n| publish(&server.broker, "in/n", n));
        } else {
            server.wait_for_subscriptions(1).await;
        }
        mosquitto.start_again().await;
        let mut client = mosquitto.client("here").await;
        bridge_is_there(&server).await;
        if !keeps_its_session {
            (COUNT..2 * COUNT).for_each(|n| publish(&server.broker, "in/n", n));
        }
        expect_all("in after its restart", COUNT..2 * COUNT, async || client.payload_within(PATIENCE).await)
            .await;
        for n in 0..COUNT {
            client.publish("out/n", QoS::AtLeastOnce, &n.to_string()).await;
        }
        expect_all("out after its restart", 0..COUNT, async || payload(&mut arriving).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_bridged_both_ways_is_not_echoed() {
    for version in VERSIONS {
        let server = TestServer::start().await;
        let mut here = subscribe(&server.broker, "both/#");
        let Some(mosquitto) = Mosquitto::start(version, server.mqtt).await else { return };
        let mut there = mosquitto.client("there").await;
        there.subscribe("both/#", QoS::AtLeastOnce).await;
        bridge_is_there(&server).await;
        for n in 0..50 {
            publish(&server.broker, "both/here", n);
            there.publish("both/there", QoS::AtLeastOnce, &n.to_string()).await;
        }
        // Each side hears each message once: its own fifty and the other's.
        let mut heard = [0; 4];
        for _ in 0..100 {
            let message = within(here.message()).await.expect("the broker lives");
            heard[usize::from(message.channel().as_str() == "both/there")] += 1;
            let message = there.message().await;
            heard[2 + usize::from(message.topic == "both/there")] += 1;
        }
        assert_eq!(heard, [50; 4], "{version}");
        let late = tokio::time::timeout(Duration::from_millis(500), here.message()).await;
        assert!(late.is_err(), "{version}: an echo: {late:?}");
    }
}
