//! Connections that serve more than one request.

use std::time::Duration;

use http::StatusCode;
use outgoing::{Client, Config, Error};

use crate::server::{OK, Server, get, until};

#[tokio::test]
async fn requests_in_a_row_share_a_connection() {
    let server = Server::start(&[OK; 50]).await;
    let client = Client::new(Config::default());
    for _ in 0..50 {
        assert_eq!(server.fetch(&client).await.unwrap().body(), "ok");
    }
    assert_eq!(server.seen(), (1, 50));
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_replaced() {
    let server = Server::start(&[OK]).await;
    let client = Client::new(Config::default());
    for n in 1..5 {
        assert_eq!(server.fetch(&client).await.unwrap().status(), StatusCode::OK);
        until(|| server.ended() == n).await;
        // The end has to get here.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.seen(), (4, 4));
}

/// It may have been done: whether to ask again is for the caller to decide.
#[tokio::test]
async fn a_request_that_was_received_is_not_sent_again() {
    for (cut, shown) in
        [("", "not a byte"), ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no", "half an answer")]
    {
        let server = Server::start(&[OK, cut]).await;
        let client = Client::new(Config::default());
        server.fetch(&client).await.unwrap();
        let failure = server.fetch(&client).await.unwrap_err();
        assert!(matches!(failure, Error::Broken(_)), "{shown}: {failure:?}");
        assert_eq!(server.seen(), (1, 2), "{shown}");
    }
}

#[tokio::test]
async fn a_connection_whose_body_was_dropped_is_closed() {
    let server = Server::start(&["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", OK]).await;
    let client = Client::new(Config::default());
    drop(client.send(get(&server.url())).await.unwrap());
    until(|| server.ended() == 1).await;
    client.send(get(&server.url())).await.unwrap();
    assert_eq!(server.seen(), (2, 2));
}

#[tokio::test]
async fn a_body_comes_as_it_is_sent() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n";
    let server = Server::start(&[chunked, "1\r\nb\r\n0\r\n\r\n"]).await;
    let client = Client::new(Config::default());
    let mut body = client.send(get(&server.url())).await.unwrap().into_body();
    assert_eq!(body.next().await.unwrap().unwrap(), "a");
    // The server waits for more before it goes on: so nothing more has come, and nothing waits for it.
    let more = tokio::time::timeout(Duration::from_millis(50), body.next()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn few_connections_are_kept_and_not_for_long() {
    let server = Server::start_with(&[OK; 9], Duration::from_millis(50)).await;
    let mut config = Config::default();
    config.max_idle_per_host = 2;
    config.idle_timeout = Duration::from_millis(500);
    let client = Client::new(config);
    let (a, b, c, d) = tokio::join!(
        server.fetch(&client),
        server.fetch(&client),
        server.fetch(&client),
        server.fetch(&client)
    );
    assert!([a, b, c, d].iter().all(Result::is_ok));
    assert_eq!(server.seen(), (4, 4));
    until(|| server.ended() == 2).await;
    server.fetch(&client).await.unwrap();
    assert_eq!(server.seen(), (4, 5), "one of the kept ones");
    // Without another request that would find them too old.
    until(|| server.ended() == 4).await;
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let server =
        Server::start(&["HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", OK]).await;
    let client = Client::new(Config::default());
    let answer = server.fetch(&client).await.unwrap();
    assert_eq!((answer.status(), &answer.headers()["location"]), (StatusCode::FOUND, &"/x".parse().unwrap()));
    assert_eq!(server.seen(), (1, 1));
}
