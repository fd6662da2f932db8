//! Somebody keeps messages beneath the broker and answers later: what each protocol tells its clients then.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanwire::core::{
    Accepted, Answer, Channel, Claim, Claimed, Engine, Filter, Ingest, Kept, KeyedReceipt, LogPage, Message,
    MessageId, Op, Read, Reject, Rejected, Unavailable, unix_ms,
};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::packets::{connected, packet, publish, subscribe};
use crate::support::bayeux::Socket;
use crate::support::http::{get, post, post_json, request};
use crate::support::mqtt::Bare;
use crate::support::sse::EventStream;
use crate::support::{TestServer, within};

/// Keeps `kept/…`, a little later than it is asked to. It cannot keep `kept/away`, does not know what became of
/// `kept/lost`, and nobody elsewhere reaches `kept/cut`.
#[derive(Default)]
struct Slow(Mutex<Option<UnboundedSender<Op>>>);

const LATER: Unavailable = Unavailable::new(Duration::from_secs(7));
const A_WHILE: Duration = Duration::from_millis(20);

impl Engine for Slow {
    fn keeps(&self, namespace: &str) -> bool {
        namespace == "kept"
    }

    /// So that what is asked of the past is asked here.
    fn head(&self) -> MessageId {
        MessageId::new(40, 10)
    }

    fn start(&self, ingest: Arc<dyn Ingest>) {
        let (sender, mut waiting) = unbounded_channel();
        *self.0.lock().expect("no panic") = Some(sender);
        tokio::spawn(async move {
            let mut offset = 10;
            while let Some(op) = waiting.recv().await {
                tokio::time::sleep(A_WHILE).await;
                match op {
                    Op::Publish { publish, .. } if publish.channel().as_str() == "kept/lost" => {}
                    Op::Publish { publish, done, .. } => {
                        offset += 1;
                        let accepted = Accepted::new(*publish, offset, unix_ms());
                        let receipt = ingest.release(vec![accepted]).remove(0);
                        done.complete(Ok(KeyedReceipt::first(receipt)));
                    }
                    Op::ClearRetained { channel, done } => {
                        done.complete(Ok(ingest.clear_retained(&channel)));
                    }
                    Op::Barrier(done) => done.complete(()),
                    other => panic!("{other:?}"),
                }
            }
        });
    }

    fn submit(&self, op: Op) -> Result<(), Rejected> {
        let away = match &op {
            Op::Publish { publish, .. } => publish.channel().as_str() == "kept/away",
            Op::ClearRetained { channel, .. } => channel.as_str() == "kept/away",
            _ => false,
        };
        if away {
            return Err(Rejected::new(Reject::Unavailable(LATER), op));
        }
        let sender = self.0.lock().expect("no panic").clone().expect("started");
        sender.send(op).expect("it runs");
        Ok(())
    }

    fn read(&self, read: Read) -> Answer<'static, Result<LogPage, Unavailable>> {
        let away = read.filters.iter().any(|filter| filter.to_string() == "kept/away");
        Answer::later(async move {
            tokio::time::sleep(A_WHILE).await;
            if away {
                return Err(LATER);
            }
            Ok(LogPage::new(Vec::new(), read.through, 10))
        })
    }

    fn retained(&self, channel: &Channel) -> Answer<'static, Kept<Arc<Message>>> {
        let away = channel.as_str() == "kept/away";
        Answer::later(async move { if away { Err(LATER) } else { Ok(None) } })
    }

    fn claim(&self, session: &str, _: Claim) -> Answer<'static, Result<Claimed, Unavailable>> {
        let away = session == "away";
        Answer::later(async move {
            tokio::time::sleep(A_WHILE).await;
            if away { Err(LATER) } else { Ok(Claimed::default()) }
        })
    }

    fn settled(&self, filter: &Filter) -> Answer<'static, Result<(), Unavailable>> {
        let cut = filter.to_string() == "kept/cut";
        Answer::later(async move {
            tokio::time::sleep(A_WHILE).await;
            if cut { Err(LATER) } else { Ok(()) }
        })
    }
}

async fn start() -> TestServer {
    TestServer::with(|config| {
        config.broker.namespaces.push(fanwire::core::NamespaceConfig::new(
            "kept".to_owned(),
            fanwire::core::LogConfig::default(),
        ));
        config.engine = Some(Arc::new(Slow::default()));
    })
    .await
}

#[tokio::test]
async fn http_answers_once_it_is_kept_and_says_what_cannot_be() {
    let server = start().await;
    let mut events = EventStream::open(server.http, "/sse?channel=kept/a&channel=a&format=raw").await;
    for channel in ["kept/a", "a"] {
        let answer = post(server.http, &format!("/v1/publish/{channel}"), "x").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!((answer.json()["receivers"].clone(), events.data().await), (json!(1), "x".to_owned()));
    }
    for (channel, code, wait) in
        [("kept/away", "store_unavailable", "7"), ("kept/lost", "outcome_unknown", "1")]
    {
        let answer = post(server.http, &format!("/v1/publish/{channel}"), "x").await;
        assert_eq!((answer.status, &*answer.code()), (503, code), "{answer:?}");
        assert_eq!(answer.header("retry-after"), Some(wait));
    }
    let batch = json!([{"channel": "kept/a", "data": 1}, {"channel": "kept/away", "data": 2},
        {"channel": "kept/a", "data": 3}]);
    let results = post_json(server.http, "/v1/publish", batch.to_string()).await.json();
    assert_eq!(results["results"][1]["error"]["code"], "store_unavailable", "{results}");
    assert_eq!((events.data().await, events.data().await), ("1".into(), "3".into()));
    let page = get(server.http, "/v1/history/kept/a").await.json();
    assert_eq!(page["messages"].as_array().map(Vec::len), Some(3), "{page}");
    let answer = get(server.http, "/v1/history/kept/away").await;
    assert_eq!((answer.status, &*answer.code()), (503, "store_unavailable"), "{answer:?}");
}

#[tokio::test]
async fn retained_messages_are_read_and_cleared_where_they_are_kept() {
    let server = start().await;
    assert_eq!(post(server.http, "/v1/publish/kept/r?retain=true", "x").await.status, 200);
    assert_eq!(get(server.http, "/v1/retained/kept/r?format=raw").await.text(), "x");
    assert_eq!(request(server.http, "DELETE", "/v1/retained/kept/r", &[], "").await.status, 204);
    assert_eq!(request(server.http, "DELETE", "/v1/retained/kept/r", &[], "").await.status, 404);
    for method in ["GET", "DELETE"] {
        let answer = request(server.http, method, "/v1/retained/kept/away", &[], "").await;
        assert_eq!((answer.status, &*answer.code()), (503, "store_unavailable"), "{method} {answer:?}");
    }
}

#[tokio::test]
async fn an_event_stream_that_nobody_reaches_is_sent_away() {
    let server = start().await;
    let mut stream = EventStream::open(server.http, "/sse/kept/cut").await;
    assert_eq!((stream.status, stream.next().await), (200, None));
    assert!(stream.retry.is_some_and(|ms| (7_000..=14_000).contains(&ms)), "{:?}", stream.retry);
}

#[tokio::test]
async fn mqtt_acknowledges_in_order_once_it_is_kept() {
    let server = start().await;
    let mut client = connected(&server, 5).await;
    for (filter, code) in [("kept/cut", 0x83), ("kept/a", 1), ("a", 1)] {
        client.send(&subscribe(5, filter, 7)).await;
        let (kind, body) = packet(&mut client).await;
        assert_eq!((kind, body.last()), (0x90, Some(&code)), "{filter}");
    }
    assert!(
        server.broker.channel(&Channel::parse("kept/cut").expect("a name")).is_none(),
        "it is no subscription"
    );
    let mut packets = Vec::new();
    for (id, topic) in (1..).zip(["kept/a", "a", "kept/away", "kept/a", "a"]) {
        packets.extend(publish(5, topic, 1, id, "x"));
    }
    packets.extend([0xC0, 0]);
    client.send(&packets).await;
    let (mut acknowledged, mut delivered) = (Vec::new(), Vec::new());
    while acknowledged.len() < 5 || delivered.len() < 4 {
        match packet(&mut client).await {
            (0x40, body) => acknowledged.push((body[1], body.get(2).copied().unwrap_or(0))),
            (0x32, body) => {
                let name = 2 + usize::from(body[1]);
                delivered.push(String::from_utf8_lossy(&body[2..name]).into_owned());
                client.send(&[0x40, 2, body[name], body[name + 1]]).await;
            }
            (0xD0, _) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(acknowledged, [(1, 0), (2, 0), (3, 0x83), (4, 0), (5, 0)]);
    assert_eq!(delivered, ["kept/a", "a", "kept/a", "a"], "in the order of the client");
}

#[tokio::test]
async fn mqtt_lets_nobody_in_whose_session_cannot_be_had() {
    let server = start().await;
    for (level, refusal) in [(4, 3), (5, 0x88)] {
        let mut client = Bare::connect(server.mqtt).await;
        let props: &[u8] = if level == 5 { &[0] } else { &[] };
        let body = [b"\x00\x04MQTT", &[level, 0, 0, 60][..], props, b"\x00\x04away"].concat();
        client.send(&[&[0x10, u8::try_from(body.len()).expect("short")], &body[..]].concat()).await;
        let (kind, body) = packet(&mut client).await;
        assert_eq!((kind, body[1]), (0x20, refusal), "{body:?}");
    }
}

#[tokio::test]
async fn mqtt_acknowledges_nothing_whose_outcome_is_unknown() {
    let server = start().await;
    for level in [4, 5] {
        for qos in [1, 2] {
            let mut client = connected(&server, level).await;
            client.send(&publish(level, "kept/lost", qos, 1, "x")).await;
            let rest = client.rest().await;
            assert!(rest.is_empty() || rest[0] == 0xE0, "{level} {qos} {rest:?}");
        }
    }
    // Version 3 has no way to refuse what could not be kept.
    let mut client = connected(&server, 4).await;
    client.send(&publish(4, "kept/away", 1, 1, "x")).await;
    assert_eq!(client.rest().await, b"");
}

/// It is being kept already: the end of its connection does not take it back, and it comes once.
#[tokio::test]
async fn a_qos_2_publish_whose_client_is_gone_before_it_is_kept_is_published_once() {
    let server = start().await;
    let mut messages = server.broker.subscribe("kept/#".parse().expect("a filter")).expect("open");
    let mut client = connected(&server, 5).await;
    client.send(&publish(5, "kept/a", 2, 1, "last words")).await;
    drop(client);
    assert_eq!(within(messages.message()).await.expect("published").payload(), "last words");
    assert_eq!(post(server.http, "/v1/publish/kept/end", "x").await.status, 200);
    assert_eq!(within(messages.message()).await.expect("published").payload(), "x");
}

#[tokio::test]
async fn bayeux_answers_once_it_is_kept_and_says_what_cannot_be() {
    let server = start().await;
    let mut page = Socket::handshake(server.http).await;
    let reply = page.ask_subscription("/kept/cut").await;
    assert_eq!(reply["error"], "503::store_unavailable", "{reply}");
    page.subscribe("/kept/a").await;
    let reply = page.publish("/kept/away", &json!(1)).await;
    assert_eq!(reply["error"], "503::store_unavailable", "{reply}");
    let reply = page.publish("/kept/lost", &json!(1)).await;
    assert_eq!(reply["successful"], false, "{reply}");
    let reply = page.publish("/kept/a", &json!("x")).await;
    assert_eq!((reply["successful"].clone(), page.event().await["data"].clone()), (json!(true), json!("x")));
}

#[tokio::test]
async fn what_was_taken_in_is_delivered_before_the_server_ends() {
    let server = start().await;
    let mut events = EventStream::open(server.http, "/sse?channel=kept/a&format=raw").await;
    let answers: Vec<_> = (0..5)
        .map(|n| {
            server
                .broker
                .submit(fanwire::Publish::new(Channel::parse("kept/a").expect("a name"), n.to_string()))
        })
        .collect();
    server.stop().await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert!(answer.await.is_ok(), "{n}");
        assert_eq!(events.data().await, n.to_string());
    }
}
