//! A front on a free port.

use std::net::SocketAddr;
use std::sync::Arc;

use broker_core::{AllowAll, Authenticator, Broker};
use front_mqtt::{Config, Front};

use crate::transport;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) broker: Broker,
    pub(crate) front: Front,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Config::default()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        Self::with_rights(config, Arc::new(AllowAll)).await
    }

    pub(crate) async fn with_rights(config: Config, authenticator: Arc<dyn Authenticator>) -> Self {
        let broker = Broker::new(broker_core::Config::default());
        Self::on(broker, config, authenticator).await
    }

    pub(crate) async fn on(broker: Broker, config: Config, authenticator: Arc<dyn Authenticator>) -> Self {
        let front = Front::new(broker.clone(), authenticator, config);
        Self::serving(broker, front).await
    }

    pub(crate) async fn around(front: Front) -> Self {
        Self::serving(Broker::new(broker_core::Config::default()), front).await
    }

    /// A front of this very broker.
    pub(crate) async fn serving(broker: Broker, front: Front) -> Self {
        let address = transport::serve(front.clone()).await;
        Self { address, broker, front }
    }
}
