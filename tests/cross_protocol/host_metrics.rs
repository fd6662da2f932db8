//! The example that publishes this machine's figures: real input, seen by every protocol.

use std::process::Stdio;

use rumqttc::QoS;
use serde_json::Value;
use tokio::process::Command;

use crate::support::bayeux::Socket;
use crate::support::mqtt::Client;
use crate::support::sse::EventStream;
use crate::support::{TestServer, within};

#[tokio::test]
async fn a_script_that_lives_for_milliseconds_reaches_all_protocols() {
    let server = TestServer::start().await;
    let mut stream = EventStream::open(server.http, "/sse/host/metrics").await;
    let mut page = Socket::handshake(server.http).await;
    page.subscribe("/host/metrics").await;
    let mut device = Client::connect(server.mqtt, "device").await;
    device.subscribe("host/metrics", QoS::AtMostOnce).await;
    server.wait_for_subscriptions(3).await;

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/host-metrics/publish.sh");
    let mut script = Command::new(script);
    script.arg(format!("http://{}", server.http)).stdin(Stdio::null());
    assert!(within(script.status()).await.expect("it runs").success());

    let sent: Value = serde_json::from_str(&stream.data().await).expect("JSON");
    assert!(sent["uptime_secs"].as_f64().is_some_and(|uptime| uptime > 0.0), "{sent}");
    assert!(sent["memory"]["total_kib"].as_u64().is_some_and(|total| total > 0), "{sent}");
    assert_eq!(page.event().await["data"], sent);
    assert_eq!(serde_json::from_str::<Value>(&device.payload().await).expect("JSON"), sent);
    let mut late = Client::connect(server.mqtt, "late").await;
    late.subscribe("host/#", QoS::AtMostOnce).await;
    assert!(late.message().await.retain);
}
