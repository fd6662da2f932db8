use std::sync::{Arc, Mutex};

use broker_core::{Broker, Channel, Principal};
use bytes::Bytes;
use front_bayeux::{ClientId, Closed, Config, Front, Listener, ServiceReply};
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
    let server = Server::start(Config { refuse_unhandled_services: true, ..quick() }).await;
    let mut poller = server.poller().await;
    let reply = poller.send(json!({"channel": "/service/x", "data": 1})).await;
    assert_eq!(last(&reply)["error"], "404::service_unhandled");
}

/// Greets sessions, takes messages to `/taken`, remembers goodbyes.
struct Witness {
    front: Front,
    closed: Arc<Mutex<Vec<Closed>>>,
}

impl Listener for Witness {
    fn opened(&self, client: &ClientId, _: &Principal) {
        assert!(self.front.deliver(client, "/hello", &Bytes::from_static(b"\"you\"")));
    }

    fn closed(&self, _: &ClientId, why: Closed) {
        self.closed.lock().unwrap().push(why);
    }

    fn publishing(&self, _: Option<&ClientId>, channel: &Channel, _: &str) -> bool {
        channel.as_str() != "taken"
    }
}

#[tokio::test]
async fn a_listener_greets_takes_and_remembers() {
    let broker = Broker::new(broker_core::Config::default());
    let config = Config { deliver_during_handshake: true, ..quick() };
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
    assert_eq!(seen, [Closed::ByClient, Closed::Expired]);
}
