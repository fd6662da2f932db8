//! A NATS server for tests, and nodes in this process.

mod nats;

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::{
    Broker, Channel, Config, Event, Filter, LogConfig, NamespaceConfig, Publish, Subscription,
};
use cluster::{Cluster, Settings};

pub use self::nats::Nats;

/// Longer than anything takes that works.
const SOON: Duration = Duration::from_secs(20);

/// A node, and the broker that it is the engine of.
pub struct Node {
    pub cluster: Arc<Cluster>,
    pub broker: Broker,
}

impl Node {
    pub async fn start(nats: &Nats, name: &str) -> Self {
        Self::with(settings(nats, name)).await
    }

    pub async fn with(settings: Settings) -> Self {
        Self::of(settings, Config::default()).await
    }

    pub async fn of(settings: Settings, config: Config) -> Self {
        let cluster = Arc::new(Cluster::join(settings).await.unwrap());
        let broker = Broker::with_engine(config, Arc::clone(&cluster) as _);
        Self { cluster, broker }
    }

    pub async fn subscribe(&self, filter: &str) -> Subscription {
        let filter = Filter::parse(filter).unwrap();
        let stream = self.broker.subscribe(filter.clone()).unwrap();
        soon(self.broker.settled(&filter)).await.unwrap();
        stream
    }

    pub fn publish(&self, channel: &str, text: &str) {
        self.broker.publish(message(channel, text)).unwrap();
    }

    /// Until `what` holds of what it counts.
    pub async fn until(&self, what: impl Fn(&cluster::Stats) -> bool) {
        let end = Instant::now() + SOON;
        while !what(&self.cluster.stats()) {
            assert!(Instant::now() < end, "{:?}", self.cluster.stats());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub fn settings(nats: &Nats, name: &str) -> Settings {
    let mut settings = Settings::new(vec![nats.url()]);
    settings.node = name.to_owned();
    settings
}

/// Of a node that keeps all but the namespace `memory`, on one server.
pub fn keeping(nats: &Nats, name: &str) -> Settings {
    let mut settings = settings(nats, name);
    settings.keeps_others = true;
    settings.namespaces = vec![("memory".to_owned(), false)];
    settings.replicas = 1;
    settings.max_bytes = 256 << 20;
    settings
}

/// With those namespaces in memory that are.
pub fn config() -> Config {
    let mut config = Config::default();
    config.namespaces = vec![NamespaceConfig::new("memory", LogConfig::default())];
    config
}

pub fn message(channel: &str, text: &str) -> Publish {
    Publish::new(Channel::parse(channel).unwrap(), text.to_owned())
}

pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(SOON, future).await.expect("it takes too long")
}

/// The next message as `channel text`.
pub async fn next(stream: &mut Subscription) -> String {
    match soon(stream.next()).await.expect("the subscription has not ended") {
        Event::Message(message) => {
            let text = String::from_utf8_lossy(message.payload()).into_owned();
            format!("{} {text}", message.channel())
        }
        other => panic!("{other:?}"),
    }
}

/// The next messages, so many.
pub async fn take(stream: &mut Subscription, number: usize) -> Vec<String> {
    let mut taken = Vec::new();
    while taken.len() < number {
        taken.push(next(stream).await);
    }
    taken
}
