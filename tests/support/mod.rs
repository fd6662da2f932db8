//! Servers on free ports and clients for them. Each test binary uses a part of it.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "no test binary uses all of it, and none documents it"
)]

pub mod bayeux;
pub mod http;
pub mod http2;
pub mod mqtt;
pub mod process;
pub mod sse;
pub mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use fanwire::{Broker, Channel, Config, Publish, Server};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long anything may take that should happen.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A server in this process, on free ports.
pub struct TestServer {
    pub broker: Broker,
    pub http: SocketAddr,
    pub mqtt: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl TestServer {
    /// With the default configuration.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With a configuration that `change` makes of the default.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let loopback = Some(([127, 0, 0, 1], 0).into());
        let mut config = Config::default();
        config.http = loopback;
        config.mqtt = loopback;
        // What raw requests call it.
        config.hosts = Some(vec!["x".to_owned()]);
        // Nobody here needs ten seconds to leave.
        config.shutdown_window = Duration::from_secs(1);
        change(&mut config);
        let server = Server::bind(config).await.expect("free ports are free");
        let (stop, stopped) = oneshot::channel();
        TestServer {
            broker: server.broker().clone(),
            http: server.http_address().expect("HTTP is served"),
            mqtt: server.mqtt_address().expect("MQTT is served"),
            stop,
            running: tokio::spawn(server.run(async {
                let _ = stopped.await;
            })),
        }
    }

    /// Publishes in process.
    pub fn publish(&self, channel: &str, payload: &str) -> fanwire::Receipt {
        let channel = Channel::parse(channel).expect("a legal channel");
        self.broker.publish(Publish::new(channel, payload.to_owned())).expect("the broker takes it")
    }

    /// Publishes JSON in process.
    pub fn publish_json(&self, channel: &str, payload: &str) -> fanwire::Receipt {
        let channel = Channel::parse(channel).expect("a legal channel");
        self.broker.publish(Publish::new(channel, payload.to_owned()).json()).expect("the broker takes it")
    }

    /// Stops it and waits until it has.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        within(self.running).await.expect("the server does not panic");
    }

    /// Waits until the broker has this many subscriptions: clients subscribe without hearing when it holds.
    pub async fn wait_for_subscriptions(&self, count: usize) {
        eventually(|| self.broker.stats().subscriptions == count).await;
    }
}

/// Fails the test if it takes too long.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// Waits until something holds.
pub async fn eventually(mut holds: impl FnMut() -> bool) {
    within(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
