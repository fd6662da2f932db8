use serde_json::json;

use crate::support::TestServer;
use crate::support::bayeux::Socket;
use crate::support::http::post_json;

#[tokio::test]
async fn events_come_without_a_poll_in_between() {
    let server = TestServer::start().await;
    let mut socket = Socket::handshake(server.http).await;
    socket.subscribe("/chat/*").await;
    for n in 0..100 {
        post_json(server.http, "/v1/publish/chat/room1", n.to_string()).await;
    }
    for n in 0..100 {
        let event = socket.event().await;
        assert_eq!((&event["channel"], &event["data"]), (&json!("/chat/room1"), &json!(n)));
    }
}

#[tokio::test]
async fn a_publisher_gets_its_own_messages() {
    let server = TestServer::start().await;
    let mut socket = Socket::handshake(server.http).await;
    socket.subscribe("/a").await;
    let reply = socket.publish("/a", &json!({"hello": "world"})).await;
    assert_eq!(reply["successful"], true, "{reply}");
    assert_eq!(socket.event().await["data"], json!({"hello": "world"}));
}

#[tokio::test]
async fn the_wildcards_are_those_of_bayeux() {
    let server = TestServer::start().await;
    for (filter, channel, matches) in
        [("/a/*", "a/b", true), ("/a/*", "a/b/c", false), ("/a/**", "a/b/c", true), ("/a/**", "a", false)]
    {
        let mut socket = Socket::handshake(server.http).await;
        socket.subscribe(filter).await;
        socket.subscribe("/end").await;
        server.publish_json(channel, "\"hit\"");
        server.publish_json("end", "\"end\"");
        assert_eq!(socket.event().await["data"], if matches { "hit" } else { "end" }, "{filter} {channel}");
    }
}

#[tokio::test]
async fn payloads_that_are_not_json_come_as_strings_or_binary_objects() {
    let server = TestServer::start().await;
    let mut socket = Socket::handshake(server.http).await;
    socket.subscribe("/a").await;
    let text = [("content-type", "text/plain")];
    crate::support::http::request(server.http, "POST", "/v1/publish/a", &text, "[1]").await;
    assert_eq!(socket.event().await["data"], "[1]");
    let bytes = [("content-type", "application/octet-stream")];
    crate::support::http::request(server.http, "POST", "/v1/publish/a", &bytes, vec![0xff, 0x00]).await;
    assert!(socket.event().await["data"].is_object());
}
