//! Too much, and what is said about it.

use fanwire::auth::{Access, Rate};
use fanwire::edge::OriginPolicy;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::attempts::{connack, everything, key, server};
use crate::support::bayeux::Socket;
use crate::support::http::{Answer, get, request};
use crate::support::mqtt::Bare;
use crate::support::sse::EventStream;
use crate::support::{TestServer, within};

const SLOW: &str = "the key of somebody slow";
const HEADERS: [(&str, &str); 1] = [("authorization", "Bearer the key of somebody slow")];

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate::new(per_second.try_into().unwrap(), burst.try_into().unwrap())
}

/// One message in a thousand seconds would be too precise to configure; one a second and three at once will do.
async fn slow() -> TestServer {
    let mut given = key("slow", SLOW, everything());
    given.rate = Some(rate(1, 3));
    let slow = given;
    let free = key("free", "the key of somebody free", everything());
    let mut access = Access::default();
    access.keys = vec![slow, free];
    server(access).await
}

#[tokio::test]
async fn http_says_when_to_try_again() {
    let server = slow().await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(request(server.http, "POST", "/v1/publish/a", &HEADERS, "x").await);
    }
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(answers[0].status == 200 && !refused.is_empty(), "{answers:?}");
    for answer in refused {
        assert_eq!((&*answer.code(), answer.header("retry-after")), ("rate_limited", Some("1")));
    }
    // Items of a batch count one by one, and other keys are no worse for it.
    let items = json!([{"channel": "a", "data": 1}, {"channel": "a", "data": 2}, {"channel": "a", "data": 3}, {"channel": "a", "data": 4}]);
    let batch = request(server.http, "POST", "/v1/publish", &HEADERS, items.to_string()).await.json();
    assert!(batch["results"].to_string().contains("rate_limited"), "{batch}");
    let free = [("authorization", "Bearer the key of somebody free")];
    for _ in 0..20 {
        assert_eq!(request(server.http, "POST", "/v1/publish/a", &free, "x").await.status, 200);
    }
}

#[tokio::test]
async fn a_stream_is_told_to_come_back() {
    let server = slow().await;
    let line = format!("authorization: Bearer {SLOW}\r\n");
    let mut told = false;
    for _ in 0..8 {
        let mut stream = EventStream::open_with(server.http, "/sse/a", &line).await;
        assert_eq!(stream.status, 200, "an error status would be final for a browser");
        if stream.head.iter().all(|line| !line.to_lowercase().starts_with("x-connection-id")) {
            assert_eq!(stream.next().await, None);
            told = stream.retry.is_some();
        }
    }
    assert!(told);
}

#[tokio::test]
async fn mqtt_says_it_in_the_acknowledgement_or_closes() {
    let server = slow().await;
    let connect = async |level: u8| {
        let mut device = Bare::connect(server.mqtt).await;
        device.send(&crate::attempts::connect_packet(level, Some(SLOW))).await;
        let head = device.receive(2).await;
        assert_eq!(device.receive(usize::from(head[1])).await[1], 0);
        device
    };
    // Version 5, QoS 1: PUBACK 0x97.
    let mut device = connect(5).await;
    let mut refused = 0;
    for id in 1..=8 {
        device.send(&[0x32, 6, 0, 1, b'a', 0, id, 0]).await;
        let head = device.receive(2).await;
        let ack = device.receive(usize::from(head[1])).await;
        assert_eq!(head[0], 0x40);
        refused += usize::from(ack.get(2) == Some(&0x97));
    }
    assert!(refused > 0, "none of eight was refused");
    // QoS 0: DISCONNECT 0x96.
    device.send(&[0x30, 4, 0, 1, b'a', 0].repeat(8)).await;
    let rest = device.rest().await;
    assert_eq!((rest[0], rest[2]), (0xE0, 0x96), "{rest:02x?}");
    // Version 3 has no word for it.
    let mut device = connect(4).await;
    device.send(&[0x30, 3, 0, 1, b'a'].repeat(8)).await;
    assert!(device.rest().await.is_empty());
}

#[tokio::test]
async fn bayeux_advises_an_interval() {
    let server = slow().await;
    let mut page = Socket::handshake_with(server.http, &json!({"authentication": {"token": SLOW}})).await;
    let mut refused = 0;
    for _ in 0..8 {
        let reply = page.publish("/a", &json!(1)).await;
        if reply["successful"] == false {
            refused += 1;
            let error = reply["error"].as_str().expect("an error");
            assert!(error.starts_with("429:") && error.ends_with(":rate_limited"), "{reply}");
            assert!(
                reply["advice"]["interval"].as_u64().is_some_and(|ms| (1..=3000).contains(&ms)),
                "{reply}"
            );
        }
    }
    assert!(refused > 0);
    let metrics = get(server.http, "/metrics").await;
    let line = metrics
        .text()
        .lines()
        .find(|line| line.starts_with("fanwire_refused_total{protocol=\"bayeux\",reason=\"rate\"}"))
        .expect("counted");
    assert!(line.ends_with(&format!(" {refused}")), "{line}");
}

#[tokio::test]
async fn an_address_has_so_many_connections_wherever_they_go() {
    let server = TestServer::with(|config| config.max_connections_per_address = Some(3)).await;
    let stream = EventStream::open(server.http, "/sse/a").await;
    assert_eq!(stream.status, 200);
    let page = Socket::handshake(server.http).await;
    let kept = TcpStream::connect(server.http).await.unwrap();
    // The fourth is told, whatever it wanted, and the others live.
    let refused = async || {
        let answer = crate::support::http::raw(
            server.http,
            b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        String::from_utf8(answer).unwrap()
    };
    within(async {
        loop {
            let answer = refused().await;
            if answer.starts_with("HTTP/1.1 429") {
                assert!(
                    answer.contains("retry-after: 5") && answer.contains("too_many_connections"),
                    "{answer}"
                );
                break;
            }
        }
    })
    .await;
    drop(kept);
    drop(page);
    // Places are given back, also those of connections that were taken over.
    within(async {
        loop {
            if refused().await.starts_with("HTTP/1.1 200") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    drop(stream);
}

/// One client is one connection, whatever it speaks and wherever it was accepted: two streams and two devices are four.
#[tokio::test]
async fn connections_of_one_address_are_counted_once_over_all_listeners() {
    let server = TestServer::with(|config| config.max_connections_per_address = Some(4)).await;
    let _stream = EventStream::open(server.http, "/sse/a").await;
    let _page = Socket::handshake(server.http).await;
    let device = Bare::shake_hands(server.mqtt, "one").await;
    let mut upgrade = format!("ws://{}/mqtt", server.http).into_client_request().unwrap();
    upgrade.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().unwrap());
    let (_browser, _) = within(tokio_tungstenite::connect_async(upgrade)).await.unwrap();

    // Each is told in its own terms.
    let refused = EventStream::open(server.http, "/sse/a").await;
    assert_eq!(
        (refused.status, refused.retry.is_none()),
        (200, true),
        "an event stream that says when to come back"
    );
    assert_eq!(get(server.http, "/v1/openapi.json").await.code(), "too_many_connections");
    assert_eq!(connack(server.mqtt, 5, "").await[3], 0x97);
    assert_eq!(connack(server.mqtt, 4, "").await, [0x20, 2, 0, 3]);

    drop(device);
    let metrics = within(async {
        loop {
            let answer = get(server.http, "/metrics").await;
            if answer.status == 200 {
                break answer;
            }
        }
    })
    .await;
    let line = "fanwire_refused_address_connections_total ";
    let counted = metrics.text().lines().find_map(|text| text.strip_prefix(line)).expect("counted");
    assert!(counted.parse::<u64>().expect("a number") >= 4, "{counted}");
    while connack(server.mqtt, 4, "").await != [0x20, 2, 0, 0] {}
}

const PAGE: &str = "https://app.example";

/// A server that pages of `PAGE` may use.
async fn for_pages(change: impl FnOnce(&mut fanwire::Config)) -> TestServer {
    TestServer::with(|config| {
        let origins = OriginPolicy::List(vec![PAGE.to_owned()]);
        config.api.origins = origins.clone();
        config.sse.origins = origins.clone();
        config.bayeux.origins = origins;
        change(config);
    })
    .await
}

/// What a page of `origin` is told; its browser shows it the answer only if that names the origin.
async fn asked_from(server: &TestServer, method: &str, target: &str, origin: &str) -> Answer {
    let headers = [("origin", origin), ("access-control-request-method", "POST")];
    let answer = request(server.http, method, target, &headers, "").await;
    assert_eq!(answer.header("vary"), Some("Origin"), "{answer:?}");
    let readable = (origin == PAGE).then_some(PAGE);
    assert_eq!(answer.header("access-control-allow-origin"), readable, "{answer:?}");
    answer
}

#[tokio::test]
async fn a_page_can_read_that_its_address_asks_too_often() {
    let server = for_pages(|config| config.address_rate = Some(rate(1, 1))).await;
    let mut asked = 0;
    while get(server.http, "/v1/openapi.json").await.status != 429 {
        asked += 1;
        assert!(asked < 1_000, "the rate is not kept");
    }
    for origin in [PAGE, "https://evil.example"] {
        for target in ["/v1/publish/a", "/metrics", "/cometd", "/sse/a"] {
            let method = if target.starts_with("/sse") { "HEAD" } else { "POST" };
            let answer = asked_from(&server, method, target, origin).await;
            // A second is soon over on a busy machine.
            if answer.status == 429 {
                let exposed = answer.header("access-control-expose-headers");
                assert_eq!(exposed.is_some_and(|names| names.contains("Retry-After")), origin == PAGE);
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
            }
            // Preflights are answered however many there are.
            for _ in 0..5 {
                let answer = asked_from(&server, "OPTIONS", target, origin).await;
                assert_eq!(answer.status, 204, "{target} {answer:?}");
                let methods = answer.header("access-control-allow-methods");
                assert_eq!(methods.is_some(), origin == PAGE, "{answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_stream_of_an_address_that_asks_too_often_is_told_to_come_back() {
    let server = for_pages(|config| config.address_rate = Some(rate(1, 1))).await;
    let mut told = 0;
    for _ in 0..20 {
        let mut stream = EventStream::open_with(server.http, "/sse/a", &format!("origin: {PAGE}\r\n")).await;
        assert_eq!(stream.status, 200, "an error status would be final for a browser");
        assert!(stream.head.contains(&format!("access-control-allow-origin: {PAGE}")), "{:?}", stream.head);
        if stream.head.iter().all(|line| !line.to_lowercase().starts_with("x-connection-id")) {
            assert_eq!(stream.next().await, None);
            assert!(stream.retry.is_some(), "{:?}", stream.head);
            told += 1;
        }
    }
    assert!(told > 0);
    let metrics = loop {
        let metrics = get(server.http, "/metrics").await;
        if metrics.status == 200 {
            break metrics;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    let refused = metrics
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("fanwire_refused_total{protocol=\"sse\",reason=\"other\"} "));
    assert_eq!(refused, Some(&*told.to_string()), "counted");
}

#[tokio::test]
async fn a_page_can_read_that_its_address_has_too_many_connections() {
    let server = for_pages(|config| config.max_connections_per_address = Some(1)).await;
    let _kept = EventStream::open(server.http, "/sse/a").await;
    let answer = asked_from(&server, "POST", "/v1/publish/a", PAGE).await;
    assert_eq!((answer.status, &*answer.code()), (429, "too_many_connections"));
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert!(answer.header("x-request-id").is_some());
    let answer = asked_from(&server, "POST", "/v1/publish/a", "https://evil.example").await;
    assert_eq!(answer.status, 429);
    assert_eq!(asked_from(&server, "OPTIONS", "/v1/publish/a", PAGE).await.status, 204);
    let mut stream = EventStream::open_with(server.http, "/sse/a", &format!("origin: {PAGE}\r\n")).await;
    assert!(stream.head.contains(&format!("access-control-allow-origin: {PAGE}")), "{:?}", stream.head);
    assert_eq!((stream.status, stream.next().await), (200, None));
    assert!(stream.retry.is_some(), "told to come back");
    // A peer that says nothing is told too, and no page.
    let answer = crate::support::http::raw(server.http, b"").await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 ") && !answer.contains("access-control"), "{answer}");
}

#[tokio::test]
async fn an_address_makes_so_many_requests() {
    let server = TestServer::with(|config| config.address_rate = Some(rate(1, 5))).await;
    let mut refused = 0;
    for _ in 0..20 {
        let answer = get(server.http, "/v1/openapi.json").await;
        if answer.status == 429 {
            refused += 1;
            assert_eq!((&*answer.code(), answer.header("retry-after")), ("too_many_requests", Some("1")));
            assert!(answer.header("x-request-id").is_some());
        }
    }
    assert!(refused > 0);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(
            get(server.http, path).await.status,
            200,
            "who asks whether to restart it is always answered"
        );
    }
    let mut codes = Vec::new();
    for _ in 0..5 {
        codes.push(connack(server.mqtt, 5, "x").await[3]);
    }
    assert!(codes.contains(&0x9F), "connection rate exceeded: {codes:02x?}");
}
