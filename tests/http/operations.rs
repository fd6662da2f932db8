use crate::support::TestServer;
use tokio::net::TcpStream;

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

#[tokio::test]
async fn a_configured_number_of_connections_is_kept() {
    let server = TestServer::with(|config| config.max_connections = Some(20)).await;
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(TcpStream::connect(server.http).await.expect("the server listens"));
    }
    // Which of the twenty were refused depends on what else this process has open; one more than fits always is.
    let refused = crate::support::within(async {
        loop {
            let answer = get(server.http, "/healthz").await;
            if answer.status == 503 {
                break answer;
            }
            open.push(TcpStream::connect(server.http).await.expect("the server listens"));
        }
    })
    .await;
    assert_eq!(refused.code(), "too_many_connections");
    assert!(refused.header("retry-after").is_some());
}
