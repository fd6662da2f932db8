use crate::support::TestServer;
use crate::support::http::{get, post};
use crate::support::sse::EventStream;

#[tokio::test]
async fn liveness_and_readiness_are_told_apart() {
    let server = TestServer::start().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(server.http, path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn metrics_cover_the_broker_the_listeners_and_every_front() {
    let server = TestServer::start().await;
    let _stream = EventStream::open(server.http, "/sse/a").await;
    post(server.http, "/v1/publish/a", "x").await;
    let metrics = get(server.http, "/metrics").await;
    for line in [
        "fanwire_published_messages_total 1",
        "fanwire_http_published_messages_total 1",
        "fanwire_sse_streams 1",
        "fanwire_mqtt_connections 0",
        "fanwire_bayeux_sessions 0",
        "fanwire_accept_pauses_total 0",
        "fanwire_refused_connections_total 0",
    ] {
        assert!(metrics.text().lines().any(|shown| shown == line), "{line} in\n{}", metrics.text());
    }
}
