//! What single keys of a route do.

use futures_util::StreamExt;
use grip::Key;
use grip::signature::Signer;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::events;
use crate::holds::{answer, held};
use crate::streams::Reader;
use crate::support::{Origin, Server, within};

const KEY: &str = "base64:c2VjcmV0";

fn token(key: &str) -> String {
    let now = broker_core::unix_ms() / 1000;
    let signer = Signer::new("in front", &Key::parse(key).unwrap()).unwrap();
    signer.sign(now, std::time::Duration::from_secs(60)).unwrap()
}

#[tokio::test]
async fn what_a_server_in_front_has_signed_passes_as_it_is_and_so_does_the_answer() {
    let (mut origin, server) = held(json!({"upstream_key": KEY, "sig_key": "base64:b3duIGtleQ=="})).await;
    let told = answer("grip-hold: stream\r\ngrip-channel: a\r\n", "own");
    let ask = |token: String| {
        format!(
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept-Encoding: gzip\r\nGrip-Sig: {token}\r\n\
             Grip-Feature: theirs\r\nGrip-Last: a; last-id=1\r\n\r\n"
        )
    };
    let theirs = token(KEY);
    let request = ask(theirs.clone());
    let (got, head) = tokio::join!(server.ask(&request), origin.answer(&told));
    assert!(got.contains("grip-hold: stream\r\n") && got.contains("grip-channel: a\r\n"), "{got}");
    assert!(got.ends_with("\r\n\r\nown"), "it is not held here: {got}");
    let said =
        [format!("grip-sig: {theirs}"), "grip-feature: theirs".into(), "grip-last: a; last-id=1".into()];
    for line in said.into_iter().chain(["accept-encoding: gzip".to_owned()]) {
        assert!(head.contains(&format!("{line}\r\n")), "{line}: {head}");
    }
    // Somebody else is a client like any other.
    let forged = token("base64:Zm9yZ2Vk");
    let plain = answer("", "own");
    let request = ask(forged.clone());
    let (got, head) = tokio::join!(server.ask(&request), origin.answer(&plain));
    assert!(got.ends_with("own"), "{got}");
    for line in [forged.as_str(), "theirs", "grip-last", "accept-encoding"] {
        assert!(!head.contains(line), "{line}: {head}");
    }
    assert!(head.contains("grip-sig: ey"), "{head}");
}

#[tokio::test]
async fn a_page_of_another_origin_sees_answers_held_ones_too() {
    let (mut origin, server) = held(json!({"cors": ["https://app.example"]})).await;
    let ask = |method: &str, more: &str| {
        format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nOrigin: https://app.example\r\n{more}\r\n"
        )
    };
    let got = server.ask(&ask("OPTIONS", "Access-Control-Request-Method: PUT\r\n")).await;
    assert!(got.starts_with("HTTP/1.1 204 ") && origin.is_alone(), "{got}");
    let allow = "access-control-allow-origin: https://app.example\r\n";
    assert!(got.contains(allow) && got.contains("access-control-allow-methods: GET"), "{got}");
    let passed = answer("x-a: 1\r\n", "own");
    let request = ask("GET", "");
    let (got, _) = tokio::join!(server.ask(&request), origin.answer(&passed));
    assert!(got.contains(allow) && got.contains("access-control-expose-headers: x-a"), "{got}");
    for told in ["grip-hold: response\r\ngrip-channel: a\r\n", "grip-hold: stream\r\ngrip-channel: a\r\n"] {
        let mut client = server.connect().await;
        client.send(&ask("GET", "")).await;
        origin.answer(&answer(told, "own\n")).await;
        server.holding(1).await;
        let send =
            json!({"channel": "a", "http-response": {"body": "item"}, "http-stream": {"action": "close"}});
        server.items(json!([send])).await;
        let got = client.rest().await;
        assert_eq!(got.matches("access-control-allow-origin").count(), 1, "{got}");
        assert!(got.contains(allow), "{got}");
        server.holding(0).await;
    }
}

#[tokio::test]
async fn sockets_are_on_the_channels_of_their_route_whatever_the_origin_knows() {
    let (mut origin, server) = held(json!({"subscribe": ["news"], "channel_prefix": "p/"})).await;
    let url = format!("ws://{}/", server.address);
    let connecting = tokio::spawn(tokio_tungstenite::connect_async(url));
    let mut stream = origin.accept().await;
    events::request(&mut stream).await;
    events::answer(&mut stream, "", "OPEN\r\n").await;
    let (mut client, _) = within(connecting).await.unwrap().unwrap();
    server.items(json!([{"channel": "p/news", "ws-message": {"content": "published"}}])).await;
    assert_eq!(within(client.next()).await.unwrap().unwrap(), Message::text("published"));
    client.close(None).await.unwrap();
}

#[tokio::test]
async fn an_origin_may_call_itself_by_names_of_its_own_in_links() {
    let (mut origin, server) = held(json!({"link_hosts": ["inner.example:8000"]})).await;
    let told = "grip-link: <http://inner.example:8000/more?x>; rel=next\r\n";
    let mut reader = Reader::open(&server, &mut origin, told, "one,").await;
    assert_eq!(reader.chunk().await.unwrap(), "one,");
    let head = origin.answer(&answer("", "two,")).await;
    assert!(head.starts_with("GET /more?x "), "{head}");
    assert_eq!(reader.chunk().await.unwrap(), "two,");
    assert_eq!(reader.chunk().await, None);
}

#[tokio::test]
async fn a_link_says_anew_how_its_stream_is_kept_alive() {
    let (mut origin, server) = held(json!({})).await;
    let told = "grip-hold: stream\r\ngrip-channel: a\r\ngrip-keep-alive: first; timeout=3600\r\n\
        grip-link: </next>; rel=next\r\n";
    let mut reader = Reader::open(&server, &mut origin, told, "own,").await;
    assert_eq!(reader.chunk().await.unwrap(), "own,");
    server.items(json!([{"channel": "a", "http-stream": {"action": "hint"}}])).await;
    let told = "grip-hold: stream\r\ngrip-channel: a\r\ngrip-keep-alive: second; timeout=1\r\n";
    origin.answer(&answer(told, "two,")).await;
    assert_eq!(reader.chunk().await.unwrap(), "two,");
    assert_eq!(reader.chunk().await.unwrap(), "second");
}

#[tokio::test]
async fn a_route_may_be_for_websockets_alone_and_for_what_comes_without_tls() {
    let (mut plain, mut sockets, mut secure) =
        (Origin::start().await, Origin::start().await, Origin::start().await);
    let route = |id: &str, origin: &Origin| json!({"id": id, "dialect": "proxy", "path": "/**", "origin": origin.url()});
    let mut of_sockets = route("sockets", &sockets);
    of_sockets["protocol"] = json!("websocket");
    let mut of_tls = route("secure", &secure);
    (of_tls["protocol"], of_tls["scheme"]) = (json!("http"), json!("https"));
    let server = Server::start(json!([route("plain", &plain), of_sockets, of_tls])).await;
    let ok = answer("", "ok");
    let (got, _) = tokio::join!(server.get("/"), plain.answer(&ok));
    assert!(got.ends_with("ok"), "{got}");
    let url = format!("ws://{}/", server.address);
    let (refused, _) = tokio::join!(
        tokio_tungstenite::connect_async(url),
        sockets.answer("HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n")
    );
    assert!(refused.unwrap_err().to_string().contains("403"));
    assert!(plain.is_alone() && secure.is_alone());
}
