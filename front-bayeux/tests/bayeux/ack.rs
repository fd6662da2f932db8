use serde_json::{Value, json};

use crate::support::{Poller, Server, data, last, ms, quick};

fn connect(poller: &Poller, ack: u64) -> Value {
    json!({"channel": "/meta/connect", "clientId": poller.id, "ext": {"ack": ack}, "advice": {"timeout": 0}})
}

#[tokio::test]
async fn ack_is_agreed_on_only_if_asked_for() {
    let server = Server::start(quick()).await;
    for (ext, expected) in [
        (json!({"ack": true}), json!({"ack": true})),
        (json!({"ack": false}), json!(null)),
        (json!({}), json!(null)),
        (json!([1]), json!(null)),
        (json!("x"), json!(null)),
    ] {
        assert_eq!(server.browser().await.handshake(ext.clone()).await["ext"], expected, "{ext}");
    }
}

#[tokio::test]
async fn unacknowledged_events_come_again() {
    let server = Server::start(quick()).await;
    let mut poller = server.poller_with(json!({"ack": true})).await;
    poller.subscribe("/a").await;
    server.publish("a", "1");
    server.broker.drained().await;
    assert!(data(&poller.send(json!({"channel": "/b", "data": 0})).await).is_empty(), "connects only");
    let answer = poller.send(connect(&poller, 1)).await;
    assert_eq!((data(&answer), &last(&answer)["ext"]["ack"]), (vec![json!(1)], &json!(2)));
    // The answer was lost: the client still says 1.
    server.publish("a", "2");
    server.broker.drained().await;
    let answer = poller.send(connect(&poller, 1)).await;
    assert_eq!((data(&answer), &last(&answer)["ext"]["ack"]), (vec![json!(1), json!(2)], &json!(3)));
    let answer = poller.send(connect(&poller, 3)).await;
    assert_eq!((data(&answer).len(), &last(&answer)["ext"]["ack"]), (0, &json!(4)));
}

#[tokio::test]
async fn unacknowledged_events_are_sent_at_once() {
    let mut config = quick();
    config.timing = Default::default();
    let server = Server::start(config).await;
    let mut poller = server.poller_with(json!({"ack": true})).await;
    poller.subscribe("/a").await;
    server.publish("a", "1");
    server.broker.drained().await;
    poller.send(connect(&poller, 1)).await;
    let begun = std::time::Instant::now();
    let answer = poller.send(json!({"channel": "/meta/connect", "ext": {"ack": 1}})).await;
    assert_eq!(data(&answer), [1]);
    assert!(begun.elapsed() < ms(5000));
}

#[tokio::test]
async fn over_websocket_events_and_their_reply_share_a_frame() {
    let mut config = quick();
    config.timing = Default::default();
    let server = Server::start(config).await;
    let mut socket = server.socket_session(json!({"ack": true})).await;
    socket.subscribe("/a").await;
    let connect =
        |ack: u64, id: &str| json!([{"channel": "/meta/connect", "clientId": id, "ext": {"ack": ack}}]);
    let id = socket.id.clone();
    socket.send(connect(1, &id)).await;
    tokio::time::sleep(ms(50)).await;
    server.publish("a", "1");
    let frame = socket.receive().await;
    assert_eq!((frame.len(), &frame[0]["data"], &frame[1]["ext"]["ack"]), (2, &json!(1), &json!(2)));
    server.publish("a", "2");
    socket.silent(ms(100)).await;
    socket.send(connect(2, &id)).await;
    let frame = socket.receive().await;
    assert_eq!((frame.len(), &frame[0]["data"], &frame[1]["ext"]["ack"]), (2, &json!(2), &json!(3)));
    // The frame was lost with its socket: all of it comes again on the next one.
    drop(socket);
    tokio::time::sleep(ms(100)).await;
    server.publish("a", "3");
    server.broker.drained().await;
    let mut socket = server.socket().await;
    socket.send(connect(2, &id)).await;
    let frame = socket.receive().await;
    assert_eq!(data(&frame), [2, 3]);
    assert_eq!(last(&frame)["ext"]["ack"], 4);
}

#[tokio::test]
async fn timesync_is_answered() {
    let server = Server::start(quick()).await;
    let reply = server.browser().await.handshake(json!({"timesync": {"tc": 1000, "l": 0, "o": 0}})).await;
    let answer = &reply["ext"]["timesync"];
    assert_eq!(answer["tc"], 1000);
    assert!(
        answer["ts"].as_i64().unwrap() > 1_700_000_000_000 && answer["a"].as_i64().unwrap() < 0,
        "{answer}"
    );
    let mut poller = server.poller().await;
    let reply = poller
        .send(json!({"channel": "/meta/connect", "ext": {"timesync": {"tc": 5, "l": 0, "o": 0}}}))
        .await;
    let held = last(&reply)["ext"]["timesync"]["p"].as_i64().unwrap();
    assert!((290..2000).contains(&held), "{held}");
}
