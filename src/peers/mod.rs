//! Between the fronts and the other nodes of a cluster: neither knows the other.

#[cfg(feature = "http")]
mod api;
#[cfg(feature = "grip")]
mod grip;
#[cfg(feature = "mqtt")]
mod mqtt;
#[cfg(any(feature = "gateway", feature = "grip"))]
mod notices;
#[cfg(feature = "auth")]
mod rates;
mod retained;
#[cfg(feature = "gateway")]
mod webhooks;

#[cfg(any(feature = "http", feature = "mqtt", feature = "grip"))]
use std::any::Any;
use std::sync::Arc;

use broker_core::Broker;
use cluster::Cluster;
#[cfg(any(feature = "http", feature = "mqtt", feature = "grip"))]
use front::Front;

use crate::Fronts;
use crate::metrics::Clients;

/// Has the broker and its fronts know of other nodes, and answer them; resolves once it has what others keep, or soon.
pub(crate) async fn join(cluster: &Arc<Cluster>, broker: &Broker, fronts: &Fronts, clients: &Arc<Clients>) {
    let _ = (fronts, clients);
    retained::serve(cluster, broker);
    #[cfg(feature = "http")]
    api::join(cluster, fronts, clients);
    #[cfg(feature = "grip")]
    grip::join(cluster.control(), fronts);
    #[cfg(feature = "mqtt")]
    mqtt::join(cluster.control(), fronts);
    retained::fetch(&cluster.control(), broker).await;
}

#[cfg(feature = "auth")]
pub use self::rates::share_rates;

/// Has webhooks know of other nodes.
#[cfg(feature = "gateway")]
pub(crate) fn join_webhooks(cluster: &Cluster, webhooks: &gateway::webhook::Webhooks) {
    webhooks::join(cluster.control(), webhooks);
}

/// The front of a type, and itself among the others.
#[cfg(any(feature = "http", feature = "mqtt", feature = "grip"))]
fn find<F: Front>(fronts: &Fronts) -> Option<(&Arc<dyn Front>, &F)> {
    fronts.list().iter().find_map(|front| Some((front, as_a(front)?)))
}

#[cfg(any(feature = "http", feature = "mqtt", feature = "grip"))]
fn as_a<F: Front>(front: &Arc<dyn Front>) -> Option<&F> {
    let front: &dyn Any = &**front;
    front.downcast_ref()
}
