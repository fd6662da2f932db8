//! Time, size and number have bounds.

use std::time::Duration;

use outgoing::{Client, Config, Error, Phase};
use tokio::net::TcpListener;

use crate::server::{OK, Server, get};

fn phase(error: &Error) -> Option<Phase> {
    match error {
        Error::Timeout { phase, .. } => Some(*phase),
        _ => None,
    }
}

#[tokio::test]
async fn a_body_is_read_up_to_its_bound() {
    let announced = Server::start(&["HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n"]).await;
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1f4\r\n";
    let half = "x".repeat(500);
    let endless = format!("{chunked}{half}\r\n1f4\r\n{half}\r\n1\r\nx\r\n");
    let exact = format!("{chunked}{half}\r\n1f4\r\n{half}\r\n0\r\n\r\n");
    let client = Client::new(Config::default());
    for server in [announced, Server::start(&[&endless]).await] {
        let failure = server.fetch(&client).await.unwrap_err();
        assert!(matches!(failure, Error::TooLarge { max_bytes: 1000 }), "{failure:?}");
    }
    let server = Server::start(&[&exact]).await;
    assert_eq!(server.fetch(&client).await.unwrap().body().len(), 1000);
}

#[tokio::test]
async fn each_phase_has_its_time() {
    let short = Duration::from_millis(50);
    let silent = Server::start_with(&[OK], Duration::from_secs(60)).await;
    let mut given = Config::default();
    given.answer_timeout = short;
    let client = Client::new(given);
    let failure = silent.fetch(&client).await.unwrap_err();
    assert_eq!(phase(&failure), Some(Phase::Answer));
    assert_eq!(failure.to_string(), "no answer came within 50ms");

    let slow = Server::start(&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no", OK]).await;
    let client = Client::new(Config::default());
    let failure = client.fetch(get(&slow.url()), 9, short).await.unwrap_err();
    assert_eq!(phase(&failure), Some(Phase::Whole));
    let body = client.send(get(&slow.url())).await.unwrap().into_body();
    assert_eq!(phase(&body.collect(9, short).await.unwrap_err()), Some(Phase::Whole));

    // Takes connections, and says nothing to a handshake.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = Config::default();
    config.tls_timeout = short;
    let client = Client::new(config);
    let failure = client.send(get(&format!("https://{}", listener.local_addr().unwrap()))).await.unwrap_err();
    assert_eq!(phase(&failure), Some(Phase::Tls));
}

#[tokio::test]
async fn so_many_requests_are_under_way_to_a_host_and_others_wait_for_their_turn() {
    let server = Server::start(&[OK; 9]).await;
    let mut config = Config::default();
    config.max_requests_per_host = 2;
    config.answer_timeout = Duration::from_millis(100);
    let client = Client::new(config);
    // Under way until the body is read.
    let unread = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let streams = Server::start(&[unread]).await;
    let one = client.send(get(&streams.url())).await.unwrap();
    let two = client.send(get(&streams.url())).await.unwrap();
    let failure = client.send(get(&streams.url())).await.unwrap_err();
    assert_eq!(phase(&failure), Some(Phase::Turn));
    assert_eq!(streams.seen().0, 2);
    assert!(server.fetch(&client).await.is_ok(), "another host is not concerned");
    let waiting = tokio::spawn({
        let (client, url) = (client.clone(), streams.url());
        async move { client.send(get(&url)).await.map(drop) }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished());
    drop(one);
    assert!(waiting.await.unwrap().is_ok());
    drop(two);
}

#[tokio::test]
async fn what_fails_before_a_request_says_which_part_it_was() {
    let client = Client::new(Config::default());
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let send = async |url: &str| client.send(get(url)).await.map(drop).unwrap_err();
    assert!(matches!(send(&format!("http://{nobody}/")).await, Error::Connect(_)));
    assert!(matches!(send("http://no-such-name.invalid/").await, Error::Resolve { .. }));
    let other = Server::start(&["SSH-2.0-OpenSSH_9.2\r\n"]).await;
    assert!(matches!(send(&other.url()).await, Error::NotHttp(_)));
}
