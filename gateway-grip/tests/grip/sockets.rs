//! WebSockets that are passed through.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::{Origin, Server, within};

#[tokio::test]
async fn a_websocket_is_passed_through_with_its_subprotocol_and_its_end() {
    for scheme in ["http", "ws"] {
        let mut origin = Origin::start().await;
        let origin_url = format!("{scheme}://{}/base", origin.address);
        let server =
            Server::start(json!([{"id": "a", "dialect": "proxy", "path": "/**", "origin": origin_url}]))
                .await;
        let mut request = format!("ws://{}/chat?x=1", server.address).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
        let connecting = tokio::spawn(tokio_tungstenite::connect_async(request));
        let stream = origin.accept().await;
        #[expect(clippy::result_large_err, reason = "the library's type")]
        let seen = |request: &http::Request<()>, mut response: http::Response<()>| {
            assert_eq!(request.uri().to_string(), "/base/chat?x=1");
            assert_eq!(request.headers()["sec-websocket-protocol"], "chat");
            response.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
            Ok(response)
        };
        let mut there = within(tokio_tungstenite::accept_hdr_async(stream.0, seen)).await.unwrap();
        let (mut client, response) = within(connecting).await.unwrap().unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        let long = "x".repeat(300_000);
        for text in ["hello", &long] {
            client.send(Message::text(text)).await.unwrap();
            assert_eq!(within(there.next()).await.unwrap().unwrap(), Message::text(text));
            there.send(Message::text(text)).await.unwrap();
            assert_eq!(within(client.next()).await.unwrap().unwrap(), Message::text(text));
        }
        there.close(None).await.unwrap();
        let end = within(client.next()).await;
        assert!(matches!(end, Some(Ok(Message::Close(_)))), "{end:?}");
    }
}

#[tokio::test]
async fn an_origin_that_declines_a_handshake_is_heard() {
    let mut origin = Origin::start().await;
    let server =
        Server::start(json!([{"id": "a", "dialect": "proxy", "path": "/**", "origin": origin.url()}])).await;
    let connecting = tokio::spawn(tokio_tungstenite::connect_async(format!("ws://{}/", server.address)));
    let head = origin.answer("HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno").await;
    assert!(head.to_ascii_lowercase().contains("upgrade: websocket"), "{head}");
    let refused = within(connecting).await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("403"), "{refused}");
}

#[tokio::test]
async fn a_silent_websocket_is_closed_and_one_too_many_refused() {
    let mut origin = Origin::start().await;
    let route = json!({"id": "a", "dialect": "proxy", "path": "/**", "origin": origin.url(),
        "idle_timeout": "50ms", "max_connections": 1});
    let server = Server::start(json!([route])).await;
    let connecting = tokio::spawn(tokio_tungstenite::connect_async(format!("ws://{}/", server.address)));
    let mut there = within(tokio_tungstenite::accept_async(origin.accept().await.0)).await.unwrap();
    let (mut client, _) = within(connecting).await.unwrap().unwrap();
    let refused = server.get("/").await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("retry-after: 1"), "{refused}");
    let end = within(client.next()).await;
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
    let end = within(there.next()).await;
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
    let (answer, _) = tokio::join!(server.get("/"), origin.answer("HTTP/1.1 204 Nothing\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
}

#[tokio::test]
async fn websockets_end_when_the_server_stops() {
    let mut origin = Origin::start().await;
    let server =
        Server::start(json!([{"id": "a", "dialect": "proxy", "path": "/**", "origin": origin.url()}])).await;
    let connecting = tokio::spawn(tokio_tungstenite::connect_async(format!("ws://{}/", server.address)));
    let _there = within(tokio_tungstenite::accept_async(origin.accept().await.0)).await.unwrap();
    let (mut client, _) = within(connecting).await.unwrap().unwrap();
    within(server.front.shutdown(std::time::Duration::from_secs(10))).await;
    let end = within(client.next()).await;
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
    assert!(server.get("/").await.starts_with("HTTP/1.1 503 "));
}
