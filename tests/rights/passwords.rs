//! Users with passwords, and keys where a password stands.

use std::time::{Duration, Instant};

use fanwire::auth::{Access, PasswordLimits, User, hash_password};
use fanwire::{Action, RightsTemplate};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::attempts::{base64, connack, everything, key, may, server};
use crate::support::TestServer;
use crate::support::http::request;

async fn with_users(limits: PasswordLimits) -> TestServer {
    let user = |name: &str, password: &str, rights: RightsTemplate| {
        User::new(name, hash_password(password.as_bytes()).expect("random numbers"), rights)
    };
    let own = || may(&[Action::Publish, Action::History], &["orders/{user}/**"]);
    let mut access = Access::default();
    access.users = vec![user("ann", "correct horse", own()), user("bob", "battery:staple", own())];
    access.keys = vec![key("backend", "fw_not-really-random", everything())];
    access.passwords = limits;
    server(access).await
}

async fn publishes(server: &TestServer, user: &str, password: &str, channel: &str) -> u16 {
    let basic = format!("Basic {}", base64(&format!("{user}:{password}")));
    let target = format!("/v1/publish/{channel}");
    request(server.http, "POST", &target, &[("authorization", &basic)], "x").await.status
}

#[tokio::test]
async fn the_password_decides_over_http_and_mqtt() {
    let server = with_users(PasswordLimits::default()).await;
    for (user, password, channel, status) in [
        ("ann", "correct horse", "orders/ann/1", 200),
        ("ann", "correct horse", "orders/bob/1", 403),
        ("bob", "battery:staple", "orders/bob/1", 200),
        ("ann", "battery:staple", "orders/ann/1", 401),
        ("ann", "", "orders/ann/1", 401),
        ("ann", "correct horse ", "orders/ann/1", 401),
        ("Ann", "correct horse", "orders/ann/1", 401),
        ("carl", "correct horse", "orders/ann/1", 401),
        ("", "correct horse", "orders/ann/1", 401),
        // A key stands in a password's place too, whoever is named.
        ("anybody", "fw_not-really-random", "news", 200),
    ] {
        assert_eq!(publishes(&server, user, password, channel).await, status, "{user:?} {password:?}");
    }
    assert_eq!(connack(server.mqtt, 4, "correct horse").await, [0x20, 2, 0, 0]);
    assert_eq!(connack(server.mqtt, 4, "wrong").await, [0x20, 2, 0, 4], "bad user name or password");
    assert_eq!(connack(server.mqtt, 5, "correct horse").await[3], 0);
    assert_eq!(connack(server.mqtt, 5, "wrong").await[3], 0x86, "bad user name or password");
}

#[tokio::test]
async fn who_shows_nothing_is_asked_for_credentials() {
    let server = with_users(PasswordLimits::default()).await;
    let answer = request(server.http, "GET", "/v1/history/a", &[], "").await;
    assert_eq!((answer.status, &*answer.code()), (401, "credentials_required"));
    assert!(answer.header("www-authenticate").is_some());
    let mut bare = crate::support::mqtt::Bare::connect(server.mqtt).await;
    bare.send(&crate::support::mqtt::connect_packet("x")).await;
    assert_eq!(bare.receive(4).await, [0x20, 2, 0, 5], "not authorized");
}

/// 200 connections with one password: one check each would take 200 times as long as one.
#[tokio::test]
async fn a_storm_with_one_password_is_checked_once() {
    let mut limits = PasswordLimits::default();
    limits.max_concurrent = 1;
    let server = std::sync::Arc::new(with_users(limits).await);
    let began = Instant::now();
    assert_eq!(publishes(&server, "ann", "wrong", "orders/ann/1").await, 401);
    let one_check = began.elapsed();
    let storm: Vec<_> = (0..200)
        .map(|_| {
            let mqtt = server.mqtt;
            tokio::spawn(async move { connack(mqtt, 4, "correct horse").await })
        })
        .collect();
    let began = Instant::now();
    for connection in storm {
        assert_eq!(connection.await.expect("no panic"), [0x20, 2, 0, 0]);
    }
    assert!(
        began.elapsed() < one_check * 100 + Duration::from_secs(2),
        "{:?} for 200, {one_check:?} for one",
        began.elapsed()
    );
}

#[tokio::test]
async fn too_many_checks_are_told_to_come_later() {
    let mut limits = PasswordLimits::default();
    limits.max_concurrent = 1;
    limits.max_waiting = 1;
    let server = std::sync::Arc::new(with_users(limits).await);
    let attempts: Vec<_> = (0..20)
        .map(|number| {
            let server = std::sync::Arc::clone(&server);
            tokio::spawn(async move { publishes(&server, "ann", &format!("guess {number}"), "a").await })
        })
        .collect();
    let mut answers = Vec::new();
    for attempt in attempts {
        answers.push(attempt.await.expect("no panic"));
    }
    assert!(answers.iter().all(|status| matches!(status, 401 | 429)), "{answers:?}");
    assert!(answers.contains(&401) && answers.contains(&429), "{answers:?}");
}

#[tokio::test]
async fn one_addresss_wrong_passwords_keep_no_other_out() {
    let mut limits = PasswordLimits::default();
    limits.max_concurrent = 1;
    limits.max_waiting = 4;
    let server = with_users(limits).await;
    let basic = base64("ann:wrong");
    let ask = format!(
        "POST /v1/publish/a HTTP/1.1\r\nhost: x\r\nauthorization: Basic {basic}\r\ncontent-length: 0\r\n\r\n"
    );
    let mut attempts = Vec::new();
    for _ in 0..12 {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.2:0".parse().expect("an address")).expect("it is ours");
        let mut stream = socket.connect(server.http).await.expect("the server listens");
        stream.write_all(ask.as_bytes()).await.expect("written");
        attempts.push(stream);
    }
    // More than may wait are there, or were, before this one.
    let refused = async {
        let mut answers = Vec::new();
        for mut stream in attempts {
            let mut status = [0; 12];
            stream.read_exact(&mut status).await.expect("an answer");
            answers.push(String::from_utf8_lossy(&status[9..]).into_owned());
        }
        answers
    };
    let login = publishes(&server, "ann", "correct horse", "orders/ann/1");
    let (status, answers) = tokio::join!(login, refused);
    assert_eq!(status, 200);
    assert!(answers.iter().any(|status| status == "429"), "too many of theirs waited: {answers:?}");
    assert!(answers.iter().all(|status| matches!(&status[..], "401" | "429")), "{answers:?}");
}
