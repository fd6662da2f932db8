use std::sync::{Arc, Mutex};

use broker_core::LeaveReason;
use broker_core::{Broker, Channel, Principal};
use bytes::Bytes;
use front_bayeux::{ClientId, Front, Listener, ServiceReply};
use serde_json::json;

use crate::support::{Server, last, ms, quick};

#[tokio::test]
async fn services_answer_on_the_same_channel_and_id() {
    let server = Server::start(quick()).await;
    server.front.on_service("/service/echo", |request| async move { ServiceReply::Data(request.data) });
    server.front.on_service("/service/slow", |_| async {
        tokio::time::sleep(ms(50)).await;
        ServiceReply::Failed(Bytes::from_static(b"too slow"))
    });
    server.front.on_service("/service/no", |_| async { ServiceReply::Refused("500::no".into()) });
    let mut poller = server.poller().await;
    let answer = poller.send(json!({"channel": "/service/echo", "id": "7", "data": {"x": [1]}})).await;
    assert_eq!(
        answer,
        [
            json!({"channel": "/service/echo", "id": "7", "data": {"x": [1]}, "successful": true}),
            json!({"channel": "/service/echo", "id": "7", "successful": true})
        ]
    );
    let answer = poller.send(json!({"channel": "/service/slow", "id": "8", "data": 1})).await;
    assert_eq!(answer.len(), 1);
    let answer = poller.connect().await;
    assert_eq!(
        answer[0],
        json!({"channel": "/service/slow", "id": "8", "data": "too slow", "successful": false})
    );
    let answer = poller.send(json!({"channel": "/service/no", "data": 1})).await;
    assert_eq!(last(&answer)["error"], "500::no");
}

#[tokio::test]
async fn unhandled_services_may_be_an_error() {
    let mut config = quick();
    config.refuse_unhandled_services = true;
    let server = Server::start(config).await;
    let mut poller = server.poller().await;
    let reply = poller.send(json!({"channel": "/service/x", "data": 1})).await;
    assert_eq!(last(&reply)["error"], "404::service_unhandled");
}

/// Greets sessions, takes messages to `/taken`, remembers goodbyes.
struct Witness {
    front: Front,
    closed: Arc<Mutex<Vec<LeaveReason>>>,
}

impl Listener for Witness {
    fn opened(&self, client: &ClientId, _: &Principal) {
        assert!(self.front.deliver(client, "/hello", &Bytes::from_static(b"\"you\"")));
    }

    fn closed(&self, _: &ClientId, why: LeaveReason) {
        self.closed.lock().unwrap().push(why);
    }

    fn publishing(&self, _: Option<&ClientId>, channel: &Channel, _: &str) -> bool {
        channel.as_str() != "taken"
    }
}

#[tokio::test]
async fn a_listener_greets_takes_and_remembers() {
    let broker = Broker::new(broker_core::Config::default());
    let mut config = quick();
    config.deliver_during_handshake = true;
    let front = Front::new(broker.clone(), Arc::new(broker_core::AllowAll), config);
    let closed = Arc::default();
    front.set_listener(Witness { front: front.clone(), closed: Arc::clone(&closed) });
    let server = Server::serve(broker, front).await;
    let mut browser = server.browser().await;
    let body =
        r#"{"channel":"/meta/handshake","supportedConnectionTypes":["long-polling"],"ext":{"ack":true}}"#;
    let answer = browser.post(body).await.messages();
    assert_eq!(answer[0]["x-messages"], 1, "{answer:?}");
    assert_eq!(answer[0]["ext"]["ack"], json!({"enabled": true, "batch": 1}));
    assert_eq!(answer[1], json!({"channel": "/hello", "data": "you"}));

    let mut poller = server.poller().await;
    let reply = poller.send(json!({"channel": "/taken", "data": 1})).await;
    assert_eq!(last(&reply)["error"], "404::message_deleted");
    poller.send(json!({"channel": "/meta/disconnect"})).await;
    tokio::time::sleep(ms(1300)).await;
    let mut seen = closed.lock().unwrap().clone();
    seen.sort_by_key(|why| format!("{why:?}"));
    assert_eq!(seen, [LeaveReason::Client, LeaveReason::Expired]);
}

#[tokio::test]
async fn handlers_are_bounded_in_number_and_time() {
    let mut config = quick();
    config.service_timeout = ms(200);
    config.max_service_calls_per_session = 2;
    let server = Server::start(config).await;
    server.front.on_service("/service/never", |_| std::future::pending());
    server.front.on_service("/service/late", |_| async {
        tokio::time::sleep(ms(20)).await;
        ServiceReply::Refused("500::no".into())
    });
    let mut poller = server.poller().await;
    let calls: Vec<_> = (0..3).map(|id| json!({"channel": "/service/never", "id": id, "data": 1})).collect();
    let answer = poller.batch(&calls).await;
    let verdicts: Vec<_> = answer.iter().map(|reply| reply["successful"].clone()).collect();
    assert_eq!(verdicts, [true, true, false]);
    assert_eq!(answer[2]["error"], "429::busy");
    let mut late = Vec::new();
    while late.len() < 2 {
        late.extend(
            poller.connect().await.into_iter().filter(|message| message["channel"] == "/service/never"),
        );
    }
    for (id, message) in late.iter().enumerate() {
        assert_eq!(
            *message,
            json!({"channel": "/service/never", "id": id, "data": "timeout", "successful": false})
        );
    }
    assert_eq!(server.front.stats().late_services, 2);
    let answer = poller.send(json!({"channel": "/service/late", "id": "l", "data": 1})).await;
    assert_eq!(last(&answer)["successful"], true, "there is room again");
    let expected = json!({"channel": "/service/late", "id": "l", "data": "500::no", "error": "500::no", "successful": false});
    assert_eq!(poller.connect().await[0], expected);
}

/// Wants a token in `ext` of every subscribe, as faye's users do it in an extension.
struct Doorkeeper;

impl Listener for Doorkeeper {
    fn incoming(&self, message: &front_bayeux::Incoming<'_>) -> Result<(), std::borrow::Cow<'static, str>> {
        let has_token = message.ext.is_some_and(|ext| ext.contains("\"secret\""));
        match message.channel {
            "/meta/subscribe" if !has_token => Err("403::token_missing".into()),
            "/meta/handshake" if message.ext.is_some_and(|ext| ext.contains("banned")) => {
                Err("403::banned".into())
            }
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn an_incoming_extension_may_refuse_any_message() {
    let server = Server::start(quick()).await;
    server.front.set_listener(Doorkeeper);
    let mut poller = server.poller().await;
    let reply = poller.send(json!({"channel": "/meta/subscribe", "subscription": "/a", "id": "1"})).await;
    let expected = json!({"channel": "/meta/subscribe", "id": "1", "successful": false, "subscription": "/a", "error": "403::token_missing"});
    assert_eq!(reply, [expected]);
    let reply = poller
        .send(json!({"channel": "/meta/subscribe", "subscription": "/a", "ext": {"token": "secret"}}))
        .await;
    assert_eq!(last(&reply)["successful"], true);
    let reply = server.browser().await.handshake(json!({"banned": 1})).await;
    assert_eq!((&reply["error"], &reply["advice"]["reconnect"]), (&json!("403::banned"), &json!("none")));
}

#[tokio::test]
async fn a_session_that_was_ended_between_connects_is_told_at_the_next() {
    let server = Server::start(quick()).await;
    let mut poller = server.poller().await;
    assert!(server.front.disconnect(&ClientId::parse(&poller.id).unwrap()));
    let answer = poller.connect().await;
    assert_eq!(answer[0], json!({"channel": "/meta/disconnect", "successful": true}));
    assert_eq!(answer[1]["advice"]["reconnect"], "none");
    assert_eq!(last(&poller.connect().await)["error"], "402::session_unknown");
}
