//! An embedding service decides beside the rights, at once or later, for every protocol.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use fanwire::{Answer, AuthError, Client, Credentials, Denied, Filter, Policy, Principal, Publish, Rights};
use serde_json::json;

use crate::packets::{connected, packet, publish, subscribe};
use crate::support::bayeux::Socket;
use crate::support::http::{get, post};
use crate::support::sse::EventStream;
use crate::support::{TestServer, within};

/// Says no to `closed/…`, does not know about `away/…`, asks somebody about `slow/…` first, and lets nobody shout.
struct Rules;

const AWAY: Denied = Denied::Unavailable { retry_after: Duration::from_secs(3) };

fn judge(channel: &str) -> Result<(), Denied> {
    match channel.split('/').next() {
        Some("closed") => Err(Denied::Forbidden("closed: for today".into())),
        Some("away") => Err(AWAY),
        _ => Ok(()),
    }
}

impl Policy for Rules {
    fn connect<'a>(
        &'a self,
        credentials: &Credentials<'a>,
        principal: Principal,
    ) -> Answer<'a, Result<Principal, AuthError>> {
        match credentials.user {
            Some("mallory") => Answer::now(Err(AuthError::Invalid("not this one".to_owned()))),
            Some(name) => {
                let name = name.to_owned();
                Answer::later(async move { Ok(Principal::user_with(&name, Rights::all())) })
            }
            None => Answer::now(Ok(principal)),
        }
    }

    fn subscribe(&self, client: &Client<'_>, filter: &Filter) -> Answer<'static, Result<(), Denied>> {
        assert!(["mqtt", "bayeux", "sse"].contains(&client.protocol), "{client:?}");
        assert!(client.remote.is_some_and(|remote| remote.is_loopback()), "{client:?}");
        let filter = filter.to_string();
        if filter.starts_with("slow/") {
            return Answer::later(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                judge(filter.trim_start_matches("slow/"))
            });
        }
        Answer::now(judge(&filter))
    }

    fn publish(&self, client: &Client<'_>, publish: Publish) -> Answer<'static, Result<Publish, Denied>> {
        assert!(["mqtt", "bayeux", "http"].contains(&client.protocol), "{client:?}");
        let channel = publish.channel().as_str().to_owned();
        let quiet = Bytes::from(publish.payload().to_ascii_lowercase());
        let publish = publish.replace_payload(quiet);
        if let Some(rest) = channel.strip_prefix("slow/") {
            let rest = rest.to_owned();
            return Answer::later(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                judge(&rest).map(|()| publish)
            });
        }
        Answer::now(judge(&channel).map(|()| publish))
    }
}

async fn start() -> TestServer {
    TestServer::with(|config| config.policy = Some(Arc::new(Rules))).await
}

#[tokio::test]
async fn http_is_told_what_the_policy_says() {
    let server = start().await;
    let mut events = EventStream::open(server.http, "/sse?channel=a&channel=slow/a&format=raw").await;
    for channel in ["a", "slow/a"] {
        assert_eq!(post(server.http, &format!("/v1/publish/{channel}"), "LOUD").await.status, 200);
        assert_eq!(events.data().await, "loud", "{channel}");
        let closed = format!("/v1/publish/{}", channel.replace('a', "closed"));
        let answer = post(server.http, &closed, "x").await;
        assert_eq!((answer.status, &*answer.code()), (403, "forbidden"), "{answer:?}");
        assert!(answer.text().contains("closed: for today"), "{answer:?}");
        let away = format!("/v1/publish/{}", channel.replace('a', "away"));
        let answer = post(server.http, &away, "x").await;
        assert_eq!((answer.status, &*answer.code()), (503, "policy_unavailable"), "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some("3"));
    }
    let batch = json!([{"channel": "slow/a", "data": 1}, {"channel": "closed", "data": 2}, {"channel": "a", "data": 3}]);
    let answer = crate::support::http::post_json(server.http, "/v1/publish", batch.to_string()).await;
    let results = answer.json();
    assert_eq!(results["results"][1]["error"]["code"], "forbidden", "{results}");
    assert_eq!(
        (events.data().await, events.data().await),
        ("1".into(), "3".into()),
        "in the order of the batch"
    );
}

#[tokio::test]
async fn event_streams_are_told_what_the_policy_says() {
    let server = start().await;
    for filter in ["closed", "slow/closed"] {
        let answer = get(server.http, &format!("/sse/{filter}")).await;
        assert_eq!((answer.status, &*answer.code()), (403, "forbidden"), "{answer:?}");
        assert!(answer.text().contains("closed: for today"), "{answer:?}");
    }
    let answer = get(server.http, "/sse/away").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("3")), "{answer:?}");
    // A browser comes back after this, and after no error status.
    for says in ["sec-fetch-dest: empty\r\n", "user-agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"] {
        let mut stream = EventStream::open_with(server.http, "/sse/away", says).await;
        assert_eq!(stream.status, 200);
        assert_eq!(stream.next().await, None);
        assert!(stream.retry.is_some_and(|ms| (3000..=6000).contains(&ms)), "{:?}", stream.retry);
    }
}

#[tokio::test]
async fn mqtt_is_told_what_the_policy_says_in_the_order_of_its_packets() {
    let server = start().await;
    let mut client = connected(&server, 5).await;
    for (filter, code) in
        [("closed", 0x87), ("slow/closed", 0x87), ("slow/away", 0x83), ("a", 1), ("slow/a", 1)]
    {
        client.send(&subscribe(5, filter, 7)).await;
        let (kind, body) = packet(&mut client).await;
        assert_eq!((kind, body.last()), (0x90, Some(&code)), "{filter}");
    }
    // All at once: what is decided later keeps what follows waiting.
    let mut packets = Vec::new();
    for (id, topic) in (1..).zip(["slow/a", "a", "closed", "slow/closed", "away", "slow/away", "a"]) {
        packets.extend(publish(5, topic, 1, id, "LOUD"));
    }
    packets.extend([0xC0, 0]);
    client.send(&packets).await;
    let mut acknowledged = Vec::new();
    let mut delivered = Vec::new();
    loop {
        match packet(&mut client).await {
            (0x40, body) => acknowledged.push((body[1], body.get(2).copied().unwrap_or(0))),
            (0x32, body) => {
                let id = body[2 + usize::from(body[1])..][..2].to_vec();
                delivered.push(String::from_utf8_lossy(&body[2..2 + usize::from(body[1])]).into_owned());
                assert!(body.ends_with(b"loud"), "{body:?}");
                client.send(&[0x40, 2, id[0], id[1]]).await;
            }
            (0xD0, _) => break,
            other => panic!("{other:?}"),
        }
    }
    let expected = [(1, 0), (2, 0), (3, 0x87), (4, 0x87), (5, 0x83), (6, 0x83), (7, 0)];
    assert_eq!(acknowledged, expected);
    if delivered.len() < 3 {
        let (kind, body) = packet(&mut client).await;
        assert_eq!(kind, 0x32);
        delivered.push(String::from_utf8_lossy(&body[2..2 + usize::from(body[1])]).into_owned());
    }
    assert_eq!(delivered, ["slow/a", "a", "a"]);
}

#[tokio::test]
async fn version_3_is_not_told_that_something_was_taken_which_nobody_could_decide_about() {
    let server = start().await;
    for topic in ["away", "slow/away"] {
        for qos in [1, 2] {
            let mut client = connected(&server, 4).await;
            client.send(&publish(4, topic, qos, 1, "x")).await;
            assert_eq!(client.rest().await, b"", "{topic} {qos}");
        }
    }
    // An acknowledgement would say that what is forbidden was taken, too.
    let mut client = connected(&server, 4).await;
    client.send(&publish(4, "slow/closed", 1, 1, "x")).await;
    assert_eq!(client.rest().await, b"");
}

/// It was acknowledged by PUBREC or will be answered so: it may not be lost with its connection.
#[tokio::test]
async fn a_qos_2_publish_whose_client_is_gone_before_the_decision_is_published() {
    let server = start().await;
    let mut messages = server.broker.subscribe("slow/a".parse().expect("a filter")).expect("open");
    let mut client = connected(&server, 5).await;
    client.send(&publish(5, "slow/a", 2, 1, "LAST WORDS")).await;
    drop(client);
    let message = within(messages.message()).await.expect("published");
    assert_eq!(message.payload(), "last words");
}

/// Whoever comes, publishes and goes leaves something behind for as long as nobody decides; that is bounded.
#[tokio::test]
async fn undecided_publishes_of_clients_that_are_gone_are_bounded() {
    struct Silent(Arc<AtomicUsize>);
    struct Undecided(Arc<AtomicUsize>);
    impl Drop for Undecided {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Relaxed);
        }
    }
    impl Policy for Silent {
        fn publish(&self, _: &Client<'_>, _: Publish) -> Answer<'static, Result<Publish, Denied>> {
            self.0.fetch_add(1, Relaxed);
            let undecided = Undecided(Arc::clone(&self.0));
            Answer::later(async move {
                let _undecided = undecided;
                std::future::pending().await
            })
        }
    }
    let undecided = Arc::new(AtomicUsize::new(0));
    let policy = Silent(Arc::clone(&undecided));
    let server = TestServer::with(|config| config.policy = Some(Arc::new(policy))).await;
    for _ in 0..1_050 {
        let mut client = connected(&server, 5).await;
        client.send(&publish(5, "a", 2, 1, "x")).await;
    }
    let metrics = within(async {
        loop {
            let metrics = get(server.http, "/metrics").await;
            if metrics.text().contains("\nfanwire_mqtt_connections 1\n") {
                break metrics;
            }
        }
    })
    .await;
    let given_up =
        metrics.text().lines().find_map(|line| line.strip_prefix("fanwire_mqtt_publishes_given_up_total "));
    let given_up: usize = given_up.expect("counted").parse().expect("a number");
    // Each took the session of the one before; the last one is held until its publish is decided about.
    let left = undecided.load(Relaxed);
    assert!(left <= 1_001 && left > 500, "{left}");
    assert!(given_up == 0 || left >= 1_000, "{left} left, {given_up} given up");
}

#[tokio::test]
async fn bayeux_is_told_what_the_policy_says() {
    let server = start().await;
    let mut page = Socket::handshake(server.http).await;
    for prefix in ["", "/slow"] {
        let reply = page.ask_subscription(&format!("{prefix}/closed")).await;
        assert_eq!(reply["error"], "403::closed  for today", "{reply}");
        let reply = page.ask_subscription(&format!("{prefix}/away")).await;
        assert_eq!(reply["error"], "503::policy_unavailable", "{reply}");
        page.subscribe(&format!("{prefix}/a")).await;
        let reply = page.publish(&format!("{prefix}/closed"), &json!(1)).await;
        assert_eq!(reply["error"], "403::closed  for today", "{reply}");
        let reply = page.publish(&format!("{prefix}/away"), &json!(1)).await;
        assert_eq!(reply["error"], "503::policy_unavailable", "{reply}");
        let reply = page.publish(&format!("{prefix}/a"), &json!("LOUD")).await;
        assert_eq!(reply["successful"], true, "{reply}");
        assert_eq!(page.event().await["data"], "loud");
    }
}

#[tokio::test]
async fn a_policy_has_the_last_word_on_who_is_let_in() {
    let server = start().await;
    let as_user = |name: &str| {
        use base64::Engine as _;
        format!(
            "authorization: Basic {}\r\n",
            base64::engine::general_purpose::STANDARD.encode(format!("{name}:x"))
        )
    };
    let stream = EventStream::open_with(server.http, "/sse/a", &as_user("ann")).await;
    assert_eq!(stream.status, 200);
    let (_, connection) = server.broker.connections(None, 1).pop().expect("a stream");
    assert_eq!(connection.peer().expect("open").principal.user(), Some("ann"));
    let stream = EventStream::open_with(server.http, "/sse/a", &as_user("mallory")).await;
    assert_eq!(stream.status, 401);
}
