use serde_json::json;

use crate::support::{Server, data, last, ms, quick};

#[tokio::test]
async fn an_event_has_channel_data_and_ext_only() {
    let server = Server::start(quick()).await;
    let (mut publisher, mut poller) = (server.poller().await, server.poller().await);
    poller.subscribe("/a").await;
    let message = json!({"channel": "/a", "data": {"x": 1}, "id": "5", "ext": {"e": [1]}, "other": true});
    let reply = publisher.send(message).await;
    assert_eq!(reply, [json!({"channel": "/a", "id": "5", "successful": true})]);
    let answer = poller.connect().await;
    assert_eq!(answer[0], json!({"channel": "/a", "data": {"x": 1}, "ext": {"e": [1]}}));
}

#[tokio::test]
async fn data_arrives_as_it_was_sent() {
    let server = Server::start(quick()).await;
    let (mut publisher, mut poller) = (server.poller().await, server.poller().await);
    poller.subscribe("/a").await;
    let id = &publisher.id;
    let texts = [
        "null",
        "false",
        "0",
        "\"\"",
        "{\"n\":12345678901234567890,\"x\":1e400}",
        "{ \"b\":1 , \"a\":2 }",
        "[1,[2,{\"a\":null}]]",
        "\"\\ud800\"",
        "-0.0",
    ];
    let batch: Vec<String> = texts
        .iter()
        .map(|text| format!("{{\"channel\":\"/a\",\"clientId\":\"{id}\",\"data\":{text}}}"))
        .collect();
    let body = format!("[{}]", batch.join(","));
    assert_eq!(publisher.browser.post(&body).await.status, 200);
    server.broker.drained().await;
    let connect = json!({"channel": "/meta/connect", "clientId": poller.id}).to_string();
    let answer = poller.browser.post(&connect).await;
    let mut rest = &answer.body[..];
    for text in texts {
        let event = format!("{{\"channel\":\"/a\",\"data\":{text}}}");
        let at = rest.find(&event).unwrap_or_else(|| panic!("{event} in {}", answer.body));
        rest = &rest[at + event.len()..];
    }
}

#[tokio::test]
async fn bad_publishes_have_their_errors() {
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    let cases = [
        (json!({"data": 1}), "400::channel_missing"),
        (json!({"channel": 7, "data": 1}), "405::channel_invalid"),
        (json!({"channel": "", "data": 1}), "405::channel_invalid"),
        (json!({"channel": "a", "data": 1}), "405::channel_invalid"),
        (json!({"channel": "/a/*", "data": 1}), "405::channel_invalid"),
        (json!({"channel": "/a/**", "data": 1}), "405::channel_invalid"),
        (json!({"channel": "/a.b", "data": 1}), "405::channel_invalid"),
        (json!({"channel": "/a", "data": 1, "id": "x y"}), "405::message_id_invalid"),
        (json!({"channel": "/a", "data": 1, "id": {}}), "405::message_id_invalid"),
        (json!({"channel": "/a"}), "400::data_missing"),
        (
            json!({"channel": "/meta/nothing", "data": 1}),
            "403:denied_by_security_policy:channel_create_denied",
        ),
    ];
    for (message, error) in cases {
        let reply = poller.send(message.clone()).await;
        assert_eq!(last(&reply)["error"], error, "{message}");
        assert_eq!(last(&reply)["successful"], false);
    }
}

#[tokio::test]
async fn a_batch_goes_on_after_a_bad_message() {
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    let messages = [
        json!({"channel": "/a", "data": 1, "id": "1"}),
        json!({"channel": "/a/*", "data": 2, "id": "2"}),
        json!({"channel": "/a", "data": 3, "id": "3"}),
    ];
    let answer = poller.batch(&messages).await;
    let verdicts: Vec<_> = answer
        .iter()
        .filter(|message| message.get("successful").is_some())
        .map(|reply| (reply["id"].clone(), reply["successful"].clone()))
        .collect();
    assert_eq!(verdicts, [(json!("1"), json!(true)), (json!("2"), json!(false)), (json!("3"), json!(true))]);
    let mut events = data(&answer);
    if events.len() < 2 {
        events.extend(data(&poller.connect().await));
    }
    assert_eq!(events, [1, 3]);
}

#[tokio::test]
async fn overlapping_subscriptions_get_one_copy() {
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    for name in ["/a/b", "/a/*", "/a/**", "/**", "/a/b"] {
        poller.subscribe(name).await;
    }
    server.publish("a/b", "1");
    server.broker.drained().await;
    assert_eq!(data(&poller.connect().await), [1]);
}

#[tokio::test]
async fn publishers_hear_themselves_unless_told_otherwise() {
    for (echo, expected) in [(true, 1), (false, 0)] {
        let mut config = quick();
        config.broadcast_to_publisher = echo;
        let server = Server::start(config).await;
        let mut poller = server.poller().await;
        poller.subscribe("/a").await;
        let mut events = data(&poller.send(json!({"channel": "/a", "data": 1})).await);
        server.broker.drained().await;
        events.extend(data(&poller.connect().await));
        assert_eq!(events.len(), expected);
    }
}

#[tokio::test]
async fn meta_and_service_are_never_broadcast() {
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    poller.subscribe("/**").await;
    let reply = poller.send(json!({"channel": "/service/x", "data": 1})).await;
    assert_eq!(last(&reply)["successful"], true);
    server.publish("service/x", "2");
    server.publish("meta/x", "3");
    server.publish("a//b", "4");
    server.publish("ok", "5");
    server.broker.drained().await;
    assert_eq!(data(&poller.connect().await), [5]);
    assert_eq!(server.front.stats().unhandled_services, 1);
    assert_eq!(server.front.stats().inexpressible, 3);
}

#[tokio::test]
async fn deliver_only_keeps_events_for_connects() {
    let mut config = quick();
    config.meta_connect_deliver_only = true;
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    server.publish("a", "1");
    server.broker.drained().await;
    assert_eq!(poller.send(json!({"channel": "/b", "data": 1})).await.len(), 1);
    assert_eq!(data(&poller.connect().await), [1]);
}

#[tokio::test]
async fn a_reply_carries_what_waits() {
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    server.publish("a", "1");
    server.broker.drained().await;
    let answer = poller.send(json!({"channel": "/b", "data": 1})).await;
    assert_eq!((answer.len(), &answer[0]["data"], &answer[1]["channel"]), (2, &json!(1), &json!("/b")));
}

#[tokio::test]
async fn other_payloads_become_strings_and_binary_objects() {
    use broker_core::{Channel, ContentType, Publish};
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    let publish = |bytes: &'static [u8]| Publish::new(Channel::parse("a").unwrap(), bytes);
    server.broker.publish(publish(b"{\"x\":1}").content_type(ContentType::TEXT)).unwrap();
    server.broker.publish(publish(b"not json")).unwrap();
    server.broker.publish(publish(&[0x86, 0x4f, 0xd2, 0x6f, 0xb5, 0x59, 0xf7, 0x5b])).unwrap();
    server.broker.drained().await;
    let answer = poller.connect().await;
    assert_eq!(answer[0]["data"], "{\"x\":1}");
    assert_eq!(answer[1]["data"], "not json");
    assert_eq!(answer[2]["data"], json!({"data": "HelloWorld", "last": true, "meta": {}}));
    assert_eq!(answer[2]["ext"], json!({"binary": {}}));
}

#[tokio::test]
async fn a_full_queue_ends_the_session_and_says_so() {
    let mut config = quick();
    config.max_queue_messages = 3;
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    for number in 0..5 {
        server.publish("a", &number.to_string());
    }
    server.broker.drained().await;
    tokio::time::sleep(ms(60)).await;
    let reply = poller.connect().await;
    assert_eq!(last(&reply)["error"], "402:queue_full:session_unknown");
    assert_eq!(last(&reply)["advice"], json!({"reconnect": "handshake", "interval": 0}));
    assert_eq!((server.front.stats().overflowed, server.front.stats().sessions), (1, 0));
}

#[tokio::test]
async fn publishing_without_a_session_is_an_option() {
    let mut config = quick();
    config.publish_without_session = true;
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    let reply = server.browser().await.post(r#"{"channel":"/a","data":1}"#).await.messages();
    assert_eq!(reply, [json!({"channel": "/a", "successful": true})]);
    assert_eq!(data(&poller.connect().await), [1]);
}

#[tokio::test]
async fn retained_messages_greet_a_subscriber() {
    use broker_core::{Channel, Publish};
    let server = Server::start(quick()).await;
    server.broker.publish(Publish::new(Channel::parse("a").unwrap(), "7").json().retain(true)).unwrap();
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    assert_eq!(data(&poller.connect().await), [7]);
}

#[tokio::test]
async fn timestamps_are_an_option() {
    let mut config = quick();
    config.events.timestamp = true;
    let server = Server::start(config).await;
    server.front.on_service("/service/x", |_| async {
        front_bayeux::ServiceReply::Data(bytes::Bytes::from_static(b"1"))
    });
    let mut poller = server.poller().await;
    poller.subscribe("/a").await;
    server.publish("a", "1");
    server.broker.drained().await;
    let mut messages = poller.send(json!({"channel": "/service/x", "data": 1})).await;
    messages.extend(poller.send(json!({"channel": "/meta/subscribe"})).await);
    let client = front_bayeux::ClientId::parse(&poller.id).unwrap();
    server.front.deliver(&client, "/b", &bytes::Bytes::from_static(b"1"));
    messages.extend(poller.connect().await);
    server.front.disconnect(&client);
    messages.extend(poller.connect().await);
    assert_eq!(messages.len(), 8, "{messages:?}");
    for message in messages {
        assert!(message["timestamp"].as_str().unwrap().ends_with('Z'), "{message}");
    }
}

#[tokio::test]
async fn replies_to_messages_with_a_timestamp_have_one() {
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    for stamped in [true, false] {
        for mut message in [
            json!({"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"]}),
            json!({"channel": "/meta/connect"}),
            json!({"channel": "/meta/subscribe", "subscription": "/a"}),
            json!({"channel": "/a"}),
            json!({"channel": "/b", "data": 1}),
        ] {
            if stamped {
                message["timestamp"] = json!("2026-01-01T00:00:00.00");
            }
            let reply = poller.send(message.clone()).await;
            assert_eq!(last(&reply)["timestamp"].is_string(), stamped, "{message} {reply:?}");
        }
    }
}

#[tokio::test]
async fn a_field_that_decides_and_comes_twice_is_refused() {
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    let id = poller.id.clone();
    let cases = [
        (format!(r#"{{"channel":"/a","channel":"/b","clientId":"{id}","data":1,"id":"7"}}"#), "channel"),
        (format!(r#"{{"channel":"/a","clientId":"{id}","clientId":"{id}","data":1,"id":"7"}}"#), "clientId"),
        (
            format!(r#"{{"channel":"/meta/subscribe","clientId":"{id}","subscription":"/a","subscription":"/b","id":"7"}}"#),
            "subscription",
        ),
        (r#"{"channel":"/meta/handshake","supportedConnectionTypes":["long-polling"],"ext":{},"ext":{},"id":"7"}"#.into(), "ext"),
    ];
    for (body, field) in cases {
        let reply = poller.browser.post(&body).await.messages();
        assert_eq!(reply[0]["error"], format!("400:{field}:field_repeated"), "{body}");
        assert_eq!((&reply[0]["id"], reply[0].get(field)), (&json!("7"), None), "neither is echoed");
    }
    assert!(poller.connect().await.len() == 1, "nothing was done");
}
