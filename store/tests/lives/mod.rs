//! Lives of a store, one after the other, whose broker answers nearly nothing of `orders` from memory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_core::{Broker, Config, LogConfig, NamespaceConfig};
use store::{Settings, Store};

pub(crate) type Life = (Arc<Store>, Broker);

pub(crate) fn open(directory: &Path) -> Life {
    let mut settings = Settings::new(directory);
    settings.min_free_bytes = 0;
    let store = Arc::new(Store::open(settings).unwrap());
    let mut config = Config::default();
    let mut none = LogConfig::default();
    none.max_bytes = 1;
    config.namespaces = vec![NamespaceConfig::new("orders", none)];
    let broker = Broker::with_engine(config, Arc::clone(&store) as _);
    (store, broker)
}

pub(crate) async fn end((store, broker): Life) {
    soon(broker.drained()).await;
    broker.close();
    store.close();
}

pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it does not come")
}
