//! What is published, and what an origin says of channels.

use std::time::Duration;

use broker_core::{Channel, Publish};
use grip::events::{Close, Event};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    LISTED, Scripted, Server, answer, events_with, eventually, nothing, opened, text, within,
};

/// Says yes with these texts, and then nothing but what it is told to by `echo:`.
fn origin(texts: &'static [&'static str]) -> Scripted {
    Scripted::new(move |asked| async move {
        if asked.url.is_some() {
            return nothing();
        }
        if asked.is_opening() {
            return opened(texts);
        }
        let said = asked.texts();
        let said = said.iter().filter_map(|said| said.strip_prefix("echo:")).map(text).collect::<Vec<_>>();
        events_with(&[], &said)
    })
}

#[tokio::test]
async fn a_subscription_of_the_opening_is_in_force_before_the_101() {
    let origin = origin(&[r#"c:{"type":"subscribe","channel":"room+1"}"#]);
    let server = Server::start(&origin).await;
    let mut client = server.open().await;
    server.publish("room+1", "hello");
    server.publish("roomx1", "no wildcard");
    server.publish("room+1", vec![0xff, 0xfe]);
    let bytes = Publish::new(Channel::parse("room+1").unwrap(), "bytes")
        .content_type(broker_core::ContentType::new("application/octet-stream"));
    server.broker.publish(bytes).unwrap();
    assert_eq!(client.text().await, "hello");
    assert_eq!(client.next().await, Ok(Message::binary(vec![0xff, 0xfe])));
    assert_eq!(client.next().await, Ok(Message::binary("bytes")));
    client.send(r#"echo:c:{"type":"unsubscribe","channel":"room+1"}"#).await;
    client.send("echo:m:done").await;
    assert_eq!(client.text().await, "done");
    server.publish("room+1", "nobody");
    client.send("echo:m:still here").await;
    assert_eq!(client.text().await, "still here");
}

#[tokio::test]
async fn a_prefix_stands_before_names() {
    let origin = origin(&[r#"c:{"type":"subscribe","channel":"a"}"#]);
    let server = Server::with(&origin, |rules| rules.channel_prefix = "app/".to_owned()).await;
    let mut client = server.open().await;
    server.publish("a", "no");
    server.publish("app/a", "yes");
    assert_eq!(client.text().await, "yes");
}

#[tokio::test]
async fn without_the_extension_all_is_data_and_with_it_the_rest_is_dropped() {
    let plain = Scripted::new(|asked| async move {
        if asked.is_opening() {
            events_with(&[], &[Event::Open, text("c:x"), text("m:y")])
        } else {
            nothing()
        }
    });
    let server = Server::start(&plain).await;
    let mut client = server.open().await;
    assert_eq!((client.text().await, client.text().await), ("c:x".to_owned(), "m:y".to_owned()));
    let origin = origin(&["neither", "m:one"]);
    let server = Server::start(&origin).await;
    assert_eq!(server.open().await.text().await, "one");
    assert_eq!(server.hub.stats().unsorted, 1);
}

#[tokio::test]
async fn items_send_close_and_refresh() {
    let origin = origin(&[r#"c:{"type":"subscribe","channel":"a"}"#]);
    let server = Server::start(&origin).await;
    let mut client = server.open().await;
    origin.next().await;
    server.item(r#"{"channel":"a","ws-message":{"content":"one"},"http-stream":{"content":"not this"}}"#);
    server.item(r#"{"channel":"a","ws-message":{"content-bin":"AAE="}}"#);
    server.item(r#"{"channel":"a","http-stream":{"content":"for streams"}}"#);
    server.item(r#"{"channel":"a","ws-message":{"type":"ping","content":"p"}}"#);
    server.item(r#"{"channel":"a","ws-message":{"action":"refresh"}}"#);
    assert_eq!(client.text().await, "one");
    assert_eq!(client.next().await, Ok(Message::binary(vec![0, 1])));
    assert_eq!(client.next().await, Ok(Message::Ping("p".into())));
    assert_eq!(origin.next().await.body, "", "asked without an event");
    server.publish("a", "in order");
    server.item(r#"{"channel":"a","ws-message":{"action":"close","code":4002,"reason":"go"}}"#);
    server.publish("a", "behind it");
    assert_eq!(client.text().await, "in order");
    assert_eq!(client.closed().await, 4002);
    let told = origin.next().await.events();
    assert_eq!(told, [Event::Close(Some(Close::new(4002, "go")))], "the origin is told");
}

#[tokio::test]
async fn filters_decide_what_one_client_gets() {
    let origin = origin(&[
        r#"c:{"type":"set-meta","name":"user","value":"ann"}"#,
        r#"c:{"type":"subscribe","channel":"a","filters":["skip-self","var-subst"]}"#,
    ]);
    let server = Server::start(&origin).await;
    let mut client = server.open().await;
    let mine = r#"{"channel":"a","ws-message":{"content":"mine"},"meta":{"sender":"ann"}}"#;
    server.item(mine);
    server.send_item(mine);
    server.item(r#"{"channel":"a","ws-message":{"content":"%(user)s: hi"},"meta":{"sender":"bob"}}"#);
    server.item(r#"{"channel":"a","ws-message":{"content":"%(who)s"}}"#);
    server.item(r#"{"channel":"a","ws-message":{"content":"x","content-filters":["build-id"]}}"#);
    server.item(r#"{"channel":"a","ws-message":{"content":"100%%","content-filters":["var-subst"]}}"#);
    server.publish("a", "plain %(user)s");
    assert_eq!(client.text().await, "ann: hi");
    assert_eq!(client.text().await, "100%");
    assert_eq!(client.text().await, "plain ann");
    assert_eq!(server.hub.stats().filtered, 4);
}

#[tokio::test]
async fn a_filter_asks_and_what_comes_meanwhile_waits_in_order() {
    let origin = Scripted::new(|asked| async move {
        match &asked.url {
            None if asked.is_opening() => opened(&[
                r#"c:{"type":"set-meta","name":"url","value":"/check"}"#,
                r#"c:{"type":"subscribe","channel":"a","filters":["http-modify"]}"#,
            ]),
            None => nothing(),
            Some(_) if asked.body == "drop" => answer(200, &[("action", "drop")], ""),
            Some(_) if asked.body == "fail" => answer(500, &[], ""),
            Some(_) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                answer(200, &[], [&asked.body[..], b"!"].concat())
            }
        }
    });
    let server = Server::start(&origin).await;
    let mut client = server.open().await;
    origin.next().await;
    for word in ["one", "drop", "two", "fail", "three"] {
        server.item(&format!(r#"{{"channel":"a","id":"{word}","ws-message":{{"content":"{word}"}}}}"#));
    }
    for word in ["one!", "two!", "three!"] {
        assert_eq!(client.text().await, word);
    }
    let asked = origin.next().await;
    assert_eq!(asked.url.as_deref(), Some("/check"));
    assert_eq!(asked.headers["sub-meta"], r#"{"url":"/check"}"#);
    assert_eq!(asked.headers["grip-last"], "a; last-id=one");
    assert_eq!(server.hub.stats().filtered, 2);
}

#[tokio::test]
async fn quiet_clients_are_kept_alive_and_delayed_messages_come_or_are_flushed() {
    let origin = origin(&[
        r#"c:{"type":"keep-alive","content":"alive","timeout":1,"mode":"interval"}"#,
        r#"c:{"type":"send-delayed","content":"later","timeout":3600}"#,
        r#"c:{"type":"send-delayed","content":"soon","timeout":0}"#,
    ]);
    let server = Server::start(&origin).await;
    let mut client = server.open().await;
    assert_eq!(client.text().await, "soon");
    assert_eq!(client.text().await, "alive");
    client.send(r#"echo:c:{"type":"keep-alive"}"#).await;
    client.send(r#"echo:c:{"type":"flush-delayed"}"#).await;
    let mut next = client.text().await;
    while next == "alive" {
        next = client.text().await;
    }
    assert_eq!(next, "later");
}

#[tokio::test]
async fn a_detached_client_stays_and_its_origin_hears_no_more() {
    let origin = origin(&[r#"c:{"type":"subscribe","channel":"a"}"#]);
    let server = Server::start(&origin).await;
    let mut client = server.open().await;
    origin.next().await;
    client.send(r#"echo:c:{"type":"detach"}"#).await;
    origin.next().await;
    eventually(|| server.hub.stats().answered == 2).await;
    client.send("nobody hears it").await;
    server.publish("a", "still here");
    assert_eq!(client.text().await, "still here");
    within(client.socket.close(None)).await.unwrap();
    eventually(|| server.hub.stats().open == 0).await;
    assert_eq!(origin.waiting(), 0);
}

#[tokio::test]
async fn every_message_of_a_burst_arrives_once_and_in_order() {
    let origin = origin(&[r#"c:{"type":"subscribe","channel":"a"}"#]);
    let server = Server::start(&origin).await;
    let mut client = server.open().await;
    for n in 0..1_000 {
        // Every third goes the longer way.
        if n % 3 == 0 {
            server
                .item(&format!(r#"{{"channel":"a","ws-message":{{"content":"{n}","content-filters":[]}}}}"#));
        } else {
            server.publish("a", n.to_string());
        }
    }
    for n in 0..1_000 {
        assert_eq!(client.text().await, n.to_string());
    }
}

#[tokio::test]
async fn connections_are_listed_and_closed_by_operators() {
    let origin = origin(&[r#"c:{"type":"subscribe","channel":"a"}"#]);
    let server = Server::start(&origin).await;
    let mut client = server.open().await;
    let id = origin.next().await.headers["connection-id"].to_str().unwrap().to_owned();
    eventually(|| server.hub.stats().open == 1).await;
    let key = http_edge::parse_connection_id(&id).unwrap();
    let connection = server.broker.connection(key).expect("it is listed");
    assert_eq!(connection.peer().unwrap().protocol, "grip");
    assert_eq!(connection.details().subscriptions, ["a"]);
    connection.close(&broker_core::CloseCause::Administrative(None));
    assert_eq!(client.closed().await, 1000);
}

/// Items that instruct clients go to those that are listed.
#[tokio::test]
async fn a_client_is_listed_before_it_has_its_101() {
    let origin = origin(&[]);
    let server = Server::start(&origin).await;
    let mut clients = Vec::new();
    for expected in ["1", "2"] {
        let client = server.open().await;
        assert_eq!(client.response.headers()[LISTED], expected);
        clients.push(client);
    }
}

#[tokio::test]
async fn what_others_say_to_be_an_item_is_a_message_like_any_other() {
    let origin = origin(&[r#"c:{"type":"subscribe","channel":"a"}"#]);
    let server = Server::start(&origin).await;
    let mut client = server.open().await;
    let close = r#"{"channel":"a","ws-message":{"action":"close","code":4000}}"#;
    server.said_to_be("a", close);
    assert_eq!(client.text().await, "elsewhere");
    // Sealed for another channel.
    server.said_to_be("a", &websocket_over_http::sealed("b", close, b"elsewhere").unwrap());
    assert_eq!(client.text().await, "elsewhere");
    server.item(close);
    assert!(!matches!(client.next().await, Ok(message) if !message.is_close()), "the same of GRIP closes it");
}
