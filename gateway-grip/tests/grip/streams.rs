//! Clients of HTTP that are held as their origin says: streams.

use broker_core::{Channel, Publish};
use serde_json::{Value, json};

use crate::holds::{answer, held};
use crate::support::{Origin, Server, Stream, within};

const EVENTS: &str = "grip-hold: stream\r\ncontent-type: text/event-stream\r\n";

/// A stream without its frames.
pub(crate) struct Reader {
    stream: Stream,
    head: String,
}

impl Reader {
    pub(crate) async fn open(server: &Server, origin: &mut Origin, told: &str, body: &str) -> Self {
        let mut stream = server.asks(origin, &answer(told, body)).await;
        let head = stream.head().await;
        Self { stream, head }
    }

    /// The next chunk; `None` at the end of the body.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let size = self.stream.until("\r\n").await;
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut data = vec![0; size + 2];
        within(tokio::io::AsyncReadExt::read_exact(&mut self.stream.0, &mut data)).await.unwrap();
        data.truncate(size);
        (size > 0).then(|| String::from_utf8(data).unwrap())
    }
}

fn content(channel: &str, content: &str) -> Value {
    json!({"channel": channel, "http-stream": {"content": content}})
}

#[tokio::test]
async fn a_stream_goes_on_with_what_is_published() {
    let (mut origin, server) = held(json!({})).await;
    let told = format!("{EVENTS}grip-channel: a\r\ngrip-channel: b\r\ngrip-status: 200 Go On\r\n");
    let mut reader = Reader::open(&server, &mut origin, &told, "event: open\ndata:\n\n").await;
    assert!(reader.head.starts_with("HTTP/1.1 200 Go On\r\n"), "{}", reader.head);
    assert!(reader.head.contains("content-type: text/event-stream\r\n"), "{}", reader.head);
    assert!(!reader.head.contains("grip-") && !reader.head.contains("content-length"), "{}", reader.head);
    assert_eq!(reader.chunk().await.unwrap(), "event: open\ndata:\n\n");
    let results = server
        .items(json!([content("a", "data: 1\n\n"), {"channel": "a", "ws-message": {"content": "no"}}]))
        .await;
    assert_eq!(results[0]["receivers"], 1);
    server.items(json!([content("b", ": two\n\n")])).await;
    let receipt = server.broker.publish(Publish::new(Channel::parse("b").unwrap(), "three")).unwrap();
    assert_eq!(reader.chunk().await.unwrap(), "data: 1\n\n");
    assert_eq!(reader.chunk().await.unwrap(), ": two\n\n");
    assert_eq!(reader.chunk().await.unwrap(), format!("id: {}\ndata: three\n\n", receipt.id.unwrap()));
    server.items(json!([content("b", "last"), {"channel": "b", "http-stream": {"action": "close"}}])).await;
    assert_eq!(reader.chunk().await.unwrap(), "last");
    assert_eq!(reader.chunk().await, None, "it ends as a whole body does");
    server.holding(0).await;
}

#[tokio::test]
async fn a_stream_begins_behind_the_id_that_its_origin_names() {
    let (mut origin, server) = held(json!({"debug": true})).await;
    let item =
        |id: u32| json!({"channel": "a", "id": id.to_string(), "http-stream": {"content": format!("{id},")}});
    server.items((1..=300).map(item).collect()).await;
    server.broker.publish(Publish::new(Channel::parse("a").unwrap(), "outside")).unwrap();
    let told = format!("{EVENTS}grip-channel: a; prev-id=100\r\n");
    let mut reader = Reader::open(&server, &mut origin, &told, "own").await;
    assert_eq!(reader.chunk().await.unwrap(), "own");
    for id in 101..=300 {
        assert_eq!(reader.chunk().await.unwrap(), format!("{id},"));
    }
    assert_eq!(reader.chunk().await.unwrap(), "data: outside\n\n", "without an id: they are the origin's");
    server.items(json!([item(301)])).await;
    assert_eq!(reader.chunk().await.unwrap(), "301,");
    let told = answer(&format!("{EVENTS}grip-channel: a; prev-id=unknown\r\n"), "");
    let (got, _) = tokio::join!(server.get("/"), async { origin.answer(&told).await });
    assert!(got.starts_with("HTTP/1.1 502 ") && got.contains("not in the log"), "{got}");
}

#[tokio::test]
async fn nothing_is_lost_of_large_items_and_of_batches() {
    let (mut origin, server) = held(json!({})).await;
    let told = "grip-hold: stream\r\ngrip-channel: a\r\n";
    let mut reader = Reader::open(&server, &mut origin, told, "").await;
    server.holding(1).await;
    let publishing = async {
        let large = "x".repeat(4_000);
        for id in 0..300 {
            server.items(json!([content("a", &format!("{id} {large}"))])).await;
        }
        for batch in 0..15 {
            let items: Vec<_> =
                (0..100).map(|at| content("a", &format!("{} b", 300 + batch * 100 + at))).collect();
            server.items(items.into()).await;
        }
    };
    let reading = async {
        for id in 0..1_800 {
            let got = reader.chunk().await.unwrap();
            assert_eq!(got.split(' ').next().unwrap(), id.to_string());
        }
    };
    tokio::join!(publishing, reading);
}

#[tokio::test]
async fn filters_are_for_each_client_and_keep_the_order() {
    let (mut origin, server) = held(json!({})).await;
    let told = format!(
        "{EVENTS}grip-channel: a; filter=skip-self; filter=var-subst\r\ngrip-set-meta: user=\"ann\"\r\n"
    );
    let mut ann = Reader::open(&server, &mut origin, &told, "").await;
    let told = told.replace("\"ann\"", "\"bob\"");
    let mut bob = Reader::open(&server, &mut origin, &told, "").await;
    server.holding(2).await;
    let say = |text: &str, sender: &str| json!({"channel": "a", "http-stream": {"content": text}, "meta": {"sender": sender}});
    let other = json!({"channel": "a", "http-stream": {"content": "no", "content-filters": ["build-id"]}});
    server.items(json!([say("1 %(user)s", "ann"), other, say("2 %(user)s", "bob"), say("3", "")])).await;
    assert_eq!(ann.chunk().await.unwrap(), "2 ann");
    assert_eq!(ann.chunk().await.unwrap(), "3");
    assert_eq!(bob.chunk().await.unwrap(), "1 bob");
    assert_eq!(bob.chunk().await.unwrap(), "3");
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive_and_operators_end_it() {
    let (mut origin, server) = held(json!({})).await;
    let told = format!("{EVENTS}grip-channel: a\r\ngrip-keep-alive: :\\n\\n; format=cstring; timeout=1\r\n");
    let mut reader = Reader::open(&server, &mut origin, &told, "").await;
    assert_eq!(reader.chunk().await.unwrap(), ":\n\n");
    let (_, connection) = server.broker.connections(None, 100).remove(0);
    let peer = connection.peer().unwrap();
    assert_eq!((peer.protocol, connection.details().subscriptions), ("grip", vec!["a".to_owned()]));
    connection.close(&broker_core::CloseCause::Administrative(None));
    while let Some(more) = reader.chunk().await {
        assert_eq!(more, ":\n\n");
    }
}

#[tokio::test]
async fn streams_end_when_the_server_stops_and_a_cut_body_does_not_look_whole() {
    let (mut origin, server) = held(json!({})).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let told = format!("HTTP/1.1 200 OK\r\n{EVENTS}grip-channel: a\r\ncontent-length: 10\r\n\r\nhalf");
    origin.answer(&told).await;
    let got = client.rest().await;
    assert!(got.ends_with("4\r\nhalf\r\n"), "{got}");
    let mut reader =
        Reader::open(&server, &mut origin, &format!("{EVENTS}grip-channel: a\r\n"), "whole").await;
    assert_eq!(reader.chunk().await.unwrap(), "whole");
    within(server.front.shutdown(std::time::Duration::from_secs(10))).await;
    assert_eq!(reader.chunk().await, None);
}

#[tokio::test]
async fn a_route_may_leave_out_what_is_no_item() {
    let (mut origin, server) = held(json!({"stream_format": "off"})).await;
    let mut reader = Reader::open(&server, &mut origin, &format!("{EVENTS}grip-channel: a\r\n"), "own").await;
    assert_eq!(reader.chunk().await.unwrap(), "own");
    server.broker.publish(Publish::new(Channel::parse("a").unwrap(), "outside")).unwrap();
    server.items(json!([content("a", "item")])).await;
    assert_eq!(reader.chunk().await.unwrap(), "item");
}
