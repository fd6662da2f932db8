//! Wills and the right to publish them, at CONNECT and when their time comes.

use std::time::Duration;

use fanwire::Action;
use fanwire::auth::{Access, Algorithm as Accepted, KeySource};
use jsonwebtoken::Algorithm;
use rustix::process::Signal;
use serde_json::json;

use crate::attempts::{issuer, key, may, server};
use crate::sets::{SECRET as SHARED, claims, encoding_key, header, now, sign};
use crate::support::http::{get, request};
use crate::support::mqtt::Bare;
use crate::support::process::Process;
use crate::support::sse::EventStream;
use crate::support::{TestServer, within};

const SECRET: &str = "the key of a device";

/// CONNECT with a will, for a session that outlives its connection if the version can say so.
fn with_will(level: u8, id: &str, secret: &str, topic: &str, delay_secs: u8) -> Vec<u8> {
    let text = |text: &str| {
        [&u16::try_from(text.len()).expect("a short text").to_be_bytes(), text.as_bytes()].concat()
    };
    let (name, properties, will) = match level {
        3 => ("MQIsdp", vec![], vec![]),
        4 => ("MQTT", vec![], vec![]),
        _ => ("MQTT", vec![5, 0x11, 0, 0, 0, 60], vec![5, 0x18, 0, 0, 0, delay_secs]),
    };
    // User name, password, retained will of QoS 1, clean session.
    let head = [&*text(name), &[level, 0xC0 | 0x20 | 0x0C | 0x02, 0, 60], &properties, &text(id)].concat();
    let body = [head, will, text(topic), text("gone"), text("device"), text(secret)].concat();
    let digit = |value: usize| u8::try_from(value).ok().filter(|digit| *digit < 128).expect("two digits");
    let length = match body.len() {
        short @ ..128 => vec![digit(short)],
        long => vec![digit(long % 128) | 0x80, digit(long / 128)],
    };
    [&[0x10], &*length, &*body].concat()
}

/// The code of the CONNACK.
async fn connect(mqtt: std::net::SocketAddr, packet: &[u8]) -> (Bare, u8) {
    let mut device = Bare::connect(mqtt).await;
    device.send(packet).await;
    let head = device.receive(2).await;
    let connack = device.receive(usize::from(head[1])).await;
    assert_eq!(head[0], 0x20);
    (device, connack[1])
}

async fn counted(http: std::net::SocketAddr, name: &str) -> u64 {
    let metrics = get(http, "/metrics").await;
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(name)).expect("counted").trim();
    line.parse().expect("a number")
}

async fn of_one_topic() -> TestServer {
    let rights = may(&[Action::Publish, Action::Subscribe, Action::History], &["wills/#"])
        .deny([Action::Publish], fanwire::Pattern::parse("wills/forbidden/#").expect("a pattern"));
    let mut access = Access::default();
    access.keys = vec![key("device", SECRET, rights)];
    server(access).await
}

#[tokio::test]
async fn a_will_where_the_client_may_not_publish_refuses_the_connection() {
    let server = of_one_topic().await;
    let line = format!("authorization: Bearer {SECRET}\r\n");
    let mut stream = EventStream::open_with(server.http, "/sse/wills/%23", &line).await;
    for (level, refused) in [(3, 5), (4, 5), (5, 0x87)] {
        for topic in ["elsewhere", "wills/forbidden/x", "$SYS/x"] {
            let (mut device, code) =
                connect(server.mqtt, &with_will(level, "device", SECRET, topic, 0)).await;
            assert_eq!(code, refused, "{topic} in version {level}");
            assert!(device.rest().await.is_empty(), "closed");
        }
        let (device, code) = connect(server.mqtt, &with_will(level, "device", SECRET, "wills/a", 0)).await;
        assert_eq!(code, 0, "version {level}");
        drop(device);
        // The only one that is published is the one that was let in.
        let event = stream.next().await.expect("the will");
        assert!(event.data.contains("\"wills/a\"") && event.data.contains("gone"), "{event:?}");
    }
    assert_eq!(server.broker.retained_matching(&fanwire::Filter::parse("#").expect("a filter")).len(), 1);
}

/// The token was good until then, and the device is as gone as any.
#[tokio::test]
async fn the_will_of_a_client_whose_token_ends_is_published() {
    let mut trusted = issuer("https://short.example", Accepted::Hs256, KeySource::Secret(SHARED.into()));
    trusted.leeway = Duration::ZERO;
    let watcher = key("watcher", SECRET, may(&[Action::Subscribe], &["orders/#"]));
    let mut access = Access::default();
    access.keys = vec![watcher];
    access.issuers = vec![trusted];
    let server = server(access).await;
    let line = format!("authorization: Bearer {SECRET}\r\n");
    let mut stream = EventStream::open_with(server.http, "/sse/orders/%23", &line).await;
    let mut claims = claims("https://short.example");
    claims["exp"] = json!(now() + 3);
    let token = sign(&header(Algorithm::HS256, None), &claims, &encoding_key(Algorithm::HS256));
    for level in [4, 5] {
        let packet = with_will(level, "device", &token, "orders/ann/gone", 0);
        let (mut device, code) = connect(server.mqtt, &packet).await;
        assert_eq!(code, 0);
        if level == 5 {
            device.rest().await;
        } else {
            drop(device);
        }
        let event = stream.next().await.expect("the will");
        assert!(event.data.contains("\"orders/ann/gone\""), "{event:?}");
    }
}

fn entry(id: &str, secret: &str, channel: &str) -> String {
    let hash = fanwire::auth::KeyHash::of(secret.as_bytes());
    format!(
        "[[keys]]\nid = \"{id}\"\nhash = \"{hash}\"\nrights = [{{ actions = [\"publish\", \"subscribe\", \"history\"], channels = [\"{channel}\"] }}]\n"
    )
}

/// Those that a reload closes, for what they may publish now: nothing of what was taken from them.
#[tokio::test]
async fn a_will_is_judged_by_the_rights_that_its_client_has_when_it_is_due() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let write = |entries: &[String]| {
        std::fs::write(file.path(), "[server]\nreload_interval = \"0s\"\n".to_owned() + &entries.concat())
            .expect("written");
    };
    let kept = || entry("kept", "kept", "#");
    write(&[
        kept(),
        entry("less", "less", "#"),
        entry("rotated", "rotated", "#"),
        entry("removed", "removed", "#"),
    ]);
    let server = Process::start(&["--config", file.path().to_str().expect("a path")]).await;
    let line = "authorization: Bearer kept\r\n";
    let mut stream = EventStream::open_with(server.http, "/sse/wills/%23", line).await;
    let mut devices = Vec::new();
    for (level, id, secret, topic, delay) in [
        (4, "1", "less", "wills/taken", 0),
        (5, "2", "less", "wills/taken", 0),
        (5, "3", "less", "wills/taken", 1),
        (4, "4", "rotated", "wills/rotated", 0),
        (4, "5", "removed", "wills/removed", 0),
        (5, "6", "removed", "wills/removed", 1),
        // These are closed too, as their key's rights are others, and may still publish their wills.
        (4, "7", "less", "wills/left", 0),
        (5, "8", "less", "wills/left", 1),
    ] {
        let (device, code) = connect(server.mqtt, &with_will(level, id, secret, topic, delay)).await;
        assert_eq!(code, 0, "{id}");
        devices.push(device);
    }
    let refused = counted(server.http, "fanwire_refused_total{protocol=\"mqtt\",reason=\"rights\"}").await;

    write(&[kept(), entry("less", "less", "wills/left"), entry("rotated", "another secret", "#")]);
    server.signal(Signal::HUP);
    for device in &mut devices {
        device.rest().await;
    }
    // A delayed will is due a second later.
    within(async {
        while counted(server.http, "fanwire_refused_total{protocol=\"mqtt\",reason=\"rights\"}").await
            < refused + 6
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    for _ in 0..2 {
        let event = stream.next().await.expect("a will");
        assert!(event.data.contains("\"wills/left\""), "{event:?}");
    }
    request(server.http, "POST", "/v1/publish/wills/end", &[("authorization", "Bearer kept")], "x").await;
    let event = stream.next().await.expect("what comes after the wills");
    assert!(event.data.contains("\"wills/end\""), "{event:?}");
}
