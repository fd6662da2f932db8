//! The end of a broker and of the fronts on it, in the order in which nothing is lost.

use std::time::Duration;

use broker_core::Broker;
use front::Front;
use futures_util::future::join_all;
use tokio::time::timeout;

/// How long what the lanes hold may take to reach the outboxes.
const DRAIN: Duration = Duration::from_secs(2);
/// How much longer than their window the fronts may take.
const FRONTS_GRACE: Duration = Duration::from_millis(2500);

/// Ends `fronts` and the broker that they are on, as [`Server`](crate::Server) does: readiness fails and publishing ends;
/// what was accepted before is handed to its readers; clients are told in their protocols and leave within `window`; then
/// the broker is closed, so that every [`Subscription`](crate::Subscription) ends, whatever handles to it and to the
/// fronts there are. Resolves at most 4.5 s after the window.
///
/// In a service with an HTTP server of its own this goes where its shutdown begins, as the server goes on meanwhile and
/// waits for its connections afterwards: a stream or a held request is one until its front has ended it.
///
/// ```no_run
/// use std::time::Duration;
///
/// # async fn run(
/// #     listener: tokio::net::TcpListener,
/// #     application: axum::Router,
/// #     broker: fanwire::Broker,
/// #     fronts: fanwire::Fronts,
/// # ) -> std::io::Result<()> {
/// let stop = async move {
///     let _ = tokio::signal::ctrl_c().await;
///     fanwire::stop(&broker, fronts.list().iter().map(|front| &**front), Duration::from_secs(5)).await;
/// };
/// axum::serve(listener, application).with_graceful_shutdown(stop).await
/// # }
/// ```
///
/// # Cancel safety
/// Dropped before it resolves, some of this is not done; [`Broker::close`] ends what is left.
pub async fn stop<'a>(broker: &Broker, fronts: impl IntoIterator<Item = &'a dyn Front>, window: Duration) {
    let fronts: Vec<&dyn Front> = fronts.into_iter().collect();
    for front in &fronts {
        front.set_ready(false);
    }
    broker.wind_down();
    if timeout(DRAIN, broker.drained()).await.is_err() {
        tracing::warn!("not everything that was published reached its readers in time");
    }
    let leaving = join_all(fronts.iter().map(|front| front.shut_down(window)));
    if timeout(window.saturating_add(FRONTS_GRACE), leaving).await.is_err() {
        tracing::warn!("some clients did not leave in time");
    }
    broker.close();
}
