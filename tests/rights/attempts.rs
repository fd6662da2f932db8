//! One credential, tried on every front.

use std::net::SocketAddr;
use std::sync::Arc;

use fanwire::auth::{Access, Algorithm, BuiltIn, Issuer, Key, KeyHash, KeySource};
use fanwire::{Action, Pattern, RightsTemplate};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::support::http::{Answer, request};
use crate::support::mqtt::Bare;
use crate::support::sse::EventStream;
use crate::support::{TestServer, within};

/// A server for whom `access` says who may do what.
pub(crate) async fn server(access: Access) -> TestServer {
    TestServer::with(move |config| {
        config.authenticator = Arc::new(BuiltIn::with(access).expect("nothing is wrong with it"));
    })
    .await
}

/// Everything in one list.
pub(crate) fn may(actions: &[Action], channels: &[&str]) -> RightsTemplate {
    channels.iter().fold(RightsTemplate::default(), |template, channel| {
        template.allow(actions.iter().copied(), Pattern::parse(channel).expect("a pattern"))
    })
}

pub(crate) fn everything() -> RightsTemplate {
    may(&Action::ALL, &["#"])
}

pub(crate) fn key(id: &str, secret: &str, rights: RightsTemplate) -> Key {
    Key::new(id, KeyHash::of(secret.as_bytes()), rights)
}

pub(crate) fn issuer(iss: &str, algorithm: Algorithm, keys: KeySource) -> Issuer {
    let mut given = Issuer::default();
    given.iss = Some(iss.to_owned());
    given.aud = vec!["fanwire".to_owned()];
    given.algorithms = vec![algorithm];
    given.keys = keys;
    given
}

/// The ways in.
pub(crate) const FRONTS: [&str; 14] = [
    "publish, Bearer",
    "publish, X-API-Key",
    "publish, Basic",
    "history",
    "retained",
    "channels",
    "sse",
    "mqtt 3.1.1",
    "mqtt 5",
    "mqtt over websocket, CONNECT",
    "mqtt over websocket, header",
    "bayeux polling, ext",
    "bayeux polling, header",
    "bayeux websocket, ext",
];

/// Shows `secret` to a front, for something on the channel `orders/ann/1`: whether it was let in. Any answer but the
/// two that the protocol has for that fails the test.
pub(crate) async fn is_let_in(server: &TestServer, front: &str, secret: &str) -> bool {
    let (http, mqtt) = (server.http, server.mqtt);
    let bearer = format!("Bearer {secret}");
    let authorization = [("authorization", &*bearer)];
    match front {
        "publish, Bearer" => let_in(&request(http, "POST", PUBLISH, &authorization, "x").await),
        "publish, X-API-Key" => let_in(&request(http, "POST", PUBLISH, &[("x-api-key", secret)], "x").await),
        "publish, Basic" => {
            let basic = format!("Basic {}", base64(&format!("ann:{secret}")));
            let_in(&request(http, "POST", PUBLISH, &[("authorization", &basic)], "x").await)
        }
        "history" => let_in(&request(http, "GET", "/v1/history/orders/ann/1", &authorization, "").await),
        "retained" => {
            let answer = request(http, "GET", "/v1/retained/orders/ann/1", &authorization, "").await;
            answer.status == 404 || let_in(&answer)
        }
        "channels" => let_in(&request(http, "GET", "/v1/channels", &authorization, "").await),
        "sse" => {
            let line = format!("authorization: {bearer}\r\n");
            let stream = EventStream::open_with(http, "/sse/orders/ann/1", &line).await;
            assert!(matches!(stream.status, 200 | 401), "{:?}", stream.head);
            let challenge =
                stream.head.iter().any(|line| line.to_lowercase().starts_with("www-authenticate:"));
            assert_eq!(challenge, stream.status == 401, "{:?}", stream.head);
            stream.status == 200
        }
        "mqtt 3.1.1" => match connack(mqtt, 4, secret).await[..] {
            [0x20, 2, 0, 0] => true,
            [0x20, 2, 0, 4 | 5] => false,
            ref other => panic!("{other:02x?}"),
        },
        "mqtt 5" => match connack(mqtt, 5, secret).await[..] {
            [0x20, _, 0, 0, ..] => true,
            [0x20, _, 0, 0x86 | 0x87, ..] => false,
            ref other => panic!("{other:02x?}"),
        },
        "mqtt over websocket, CONNECT" => websocket_connack(http, &[], Some(secret)).await,
        "mqtt over websocket, header" => websocket_connack(http, &authorization, None).await,
        "bayeux polling, ext" => {
            let shake = json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"],
                "ext": {"authentication": {"token": secret}}}]);
            shaken(&polled(http, &[], &shake).await)
        }
        "bayeux polling, header" => {
            let shake = json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"]}]);
            shaken(&polled(http, &authorization, &shake).await)
        }
        "bayeux websocket, ext" => {
            let shake = json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["websocket"],
                "ext": {"authentication": {"token": secret}}}]);
            let address = format!("ws://{http}/cometd");
            let (mut socket, _) =
                within(tokio_tungstenite::connect_async(address)).await.expect("an upgrade");
            within(socket.send(Message::text(shake.to_string()))).await.expect("written");
            let reply = within(socket.next()).await.expect("a reply").expect("a frame");
            shaken(&serde_json::from_str(reply.to_text().expect("text")).expect("JSON"))
        }
        other => panic!("no front {other}"),
    }
}

const PUBLISH: &str = "/v1/publish/orders/ann/1";

/// 401 has its challenge, and says nothing of what was shown.
fn let_in(answer: &Answer) -> bool {
    match answer.status {
        200 => true,
        401 => {
            assert!(answer.header("www-authenticate").is_some(), "{answer:?}");
            false
        }
        _ => panic!("{answer:?}"),
    }
}

async fn polled(http: SocketAddr, headers: &[(&str, &str)], messages: &Value) -> Value {
    let headers = [&[("content-type", "application/json")], headers].concat();
    let answer = request(http, "POST", "/cometd", &headers, messages.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn shaken(replies: &Value) -> bool {
    let reply = &replies[0];
    if reply["successful"] != true {
        assert_eq!(reply["error"], "403::handshake_denied", "{reply}");
        assert_eq!(reply["advice"]["reconnect"], "none", "{reply}");
    }
    reply["successful"] == true
}

/// CONNECT with a clean session, and the user `ann` where there is a password.
pub(crate) fn connect_packet(level: u8, password: Option<&str>) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT".to_vec();
    body.push(level);
    body.push(if password.is_some() { 0xC2 } else { 0x02 });
    body.extend([0, 60]);
    if level == 5 {
        body.push(0);
    }
    for text in [Some("device"), password.map(|_| "ann"), password].into_iter().flatten() {
        body.extend(u16::try_from(text.len()).expect("a short text").to_be_bytes());
        body.extend(text.as_bytes());
    }
    let mut packet = vec![0x10];
    let mut length = body.len();
    loop {
        let byte = u8::try_from(length % 128).expect("seven bits");
        length /= 128;
        packet.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// What a CONNECT with this password is answered with.
pub(crate) async fn connack(mqtt: SocketAddr, level: u8, password: &str) -> Vec<u8> {
    let mut bare = Bare::connect(mqtt).await;
    bare.send(&connect_packet(level, Some(password))).await;
    let head = bare.receive(2).await;
    let rest = bare.receive(usize::from(head[1])).await;
    [head, rest].concat()
}

async fn websocket_connack(http: SocketAddr, headers: &[(&str, &str)], password: Option<&str>) -> bool {
    let mut upgrade = format!("ws://{http}/mqtt").into_client_request().expect("an address");
    upgrade.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().expect("a value"));
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().expect("a name");
        upgrade.headers_mut().insert(name, value.parse().expect("a value"));
    }
    let (mut socket, _) = within(tokio_tungstenite::connect_async(upgrade)).await.expect("an upgrade");
    within(socket.send(Message::binary(connect_packet(4, password)))).await.expect("written");
    let reply: tungstenite::Message = within(socket.next()).await.expect("a reply").expect("a frame");
    match reply.into_data()[..] {
        [0x20, 2, 0, 0] => true,
        [0x20, 2, 0, 4 | 5] => false,
        ref other => panic!("{other:02x?}"),
    }
}

pub(crate) fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
