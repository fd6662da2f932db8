//! What the binary does with its cluster: joins it, and says whether it is there.

use std::sync::Arc;
use std::time::Duration;

use fanwire::Fronts;
use fanwire::cluster::{Cluster, JoinError, Settings};

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Joins the cluster that is asked for.
pub(crate) async fn join(settings: Option<Settings>) -> Result<Option<Arc<Cluster>>, JoinError> {
    let Some(settings) = settings else { return Ok(None) };
    Ok(Some(Arc::new(Cluster::join(settings).await?)))
}

/// Has `/readyz` say whether this node is one of several, or alone. Never ready.
pub(crate) async fn watch(cluster: Arc<Cluster>, fronts: Fronts) {
    let mut was_ready = true;
    loop {
        let is_ready = cluster.is_ready();
        if is_ready != was_ready {
            fronts.set_ready(is_ready);
            was_ready = is_ready;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
