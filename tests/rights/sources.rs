//! Cookies and `?access_token=`: for clients that cannot set headers, where that is allowed.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use fanwire::auth::{Access, Algorithm as Accepted, KeySource};
use fanwire::edge::TokenPlaces;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Empty};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::attempts::{connect_packet, everything, issuer, key};
use crate::sets::{SECRET, claims, encoding_key, header, now, sign};
use crate::support::http::request;
use crate::support::http2::Http2;
use crate::support::process::Process;
use crate::support::sse::EventStream;
use crate::support::{TestServer, within};

const ISS: &str = "https://app.example";
const KEY: &str = "a-key-that-is-not-a-token";
const COOKIE: &str = "fanwire";

/// Where a client puts its token.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Cookie,
    Query,
}

/// What browsers talk to, and what a backend may, with a token in the address or in a cookie.
const DOORS: [&str; 14] = [
    "publish",
    "publish items",
    "events",
    "history",
    "retained",
    "channels",
    "presence",
    "connections",
    "sse",
    "sse over http/2",
    "mqtt over websocket",
    "bayeux over websocket",
    "mqtt over http/2",
    "bayeux over http/2",
];

/// Whether a token in that place opens the door; anything but yes and no fails the test.
async fn is_let_in(http: SocketAddr, door: &str, place: Place, token: &str) -> bool {
    let with = |target: &str| match place {
        Place::Query if target.contains('?') => format!("{target}&access_token={token}"),
        Place::Query => format!("{target}?access_token={token}"),
        Place::Cookie => target.to_owned(),
    };
    let cookie = format!("theirs=1; {COOKIE}={token}; more=2");
    let headers: &[(&str, &str)] = if place == Place::Cookie { &[("cookie", &cookie)] } else { &[] };
    let api = async |method: &str, target: &str, body: &str| {
        let headers = [headers, &[("content-type", "application/json")]].concat();
        let answer = request(http, method, &with(target), &headers, body.to_owned()).await;
        match answer.status {
            401 => {
                assert!(token.is_empty() || !answer.text().contains(token), "{answer:?}");
                false
            }
            // Let in, and told what is (not) there, or that only administrators see it.
            200 | 204 | 403 | 404 => true,
            _ => panic!("{door} {place:?} {answer:?}"),
        }
    };
    match door {
        "publish" => api("POST", "/v1/publish/orders/ann/1?event=x", "1").await,
        "publish items" => api("POST", "/v1/publish", r#"[{"channel":"orders/ann/1","data":1}]"#).await,
        "events" => {
            let event = r#"{"specversion":"1.0","id":"1","source":"/t","type":"orders/ann/1"}"#;
            let headers = [headers, &[("content-type", "application/cloudevents+json")]].concat();
            let answer = request(http, "POST", &with("/v1/events"), &headers, event).await;
            assert!(matches!(answer.status, 200 | 401), "{answer:?}");
            answer.status == 200
        }
        "history" => api("GET", "/v1/history/orders/ann/1", "").await,
        "retained" => api("GET", "/v1/retained/orders/ann/1", "").await,
        "channels" => api("GET", "/v1/channels", "").await,
        "presence" => api("GET", "/v1/presence/orders/ann/1", "").await,
        "connections" => api("GET", "/v1/connections", "").await,
        "sse" => {
            let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let stream = EventStream::open_with(http, &with("/sse/orders/ann/1"), &lines).await;
            assert!(matches!(stream.status, 200 | 401), "{:?}", stream.head);
            stream.status == 200
        }
        "sse over http/2" => {
            let socket = tokio::net::TcpStream::connect(http).await.expect("the server listens");
            let executor = hyper_util::rt::TokioExecutor::new();
            let (mut client, connection) =
                hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(socket))
                    .await
                    .expect("prior knowledge");
            let connection = tokio::spawn(connection);
            let mut ask = http::Request::get(format!("http://{http}{}", with("/sse/orders/ann/1")));
            for (name, value) in headers {
                ask = ask.header(*name, *value);
            }
            let ask = ask.body(Empty::<Bytes>::new()).expect("a request");
            let mut answer = within(client.send_request(ask)).await.expect("an answer");
            let status = answer.status().as_u16();
            assert!(matches!(status, 200 | 401), "{answer:?}");
            if status == 200 {
                within(answer.body_mut().frame()).await.expect("an opening").expect("a frame");
            }
            connection.abort();
            status == 200
        }
        "mqtt over websocket" | "mqtt over http/2" => {
            let packet = Message::binary(connect_packet(4, None));
            match ask_websocket(http, door, &with("/mqtt"), headers, packet).await[..] {
                [0x20, 2, 0, 0] => true,
                [0x20, 2, 0, 4 | 5] => false,
                ref other => panic!("{other:02x?}"),
            }
        }
        "bayeux over websocket" | "bayeux over http/2" => {
            let shake = json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["websocket"]}]);
            let shake = Message::text(shake.to_string());
            let reply = ask_websocket(http, door, &with("/cometd"), headers, shake).await;
            let reply: Value = serde_json::from_slice(&reply).expect("JSON");
            let let_in = reply[0]["successful"] == true;
            assert!(let_in || reply[0]["error"] == "403::handshake_denied", "{reply}");
            let_in
        }
        other => panic!("no door {other}"),
    }
}

/// The first answer on a WebSocket.
async fn ask_websocket(
    http: SocketAddr,
    door: &str,
    target: &str,
    headers: &[(&str, &str)],
    question: Message,
) -> Bytes {
    let offer: &[_] = if door.starts_with("mqtt") { &[("sec-websocket-protocol", "mqtt")] } else { &[] };
    let headers = [headers, offer].concat();
    if door.ends_with("http/2") {
        let opened = Http2::plain(http).await.open(target, &headers).await;
        let (mut socket, _) = opened.expect("a WebSocket");
        within(socket.send(question)).await.expect("written");
        return within(socket.next()).await.expect("a reply").expect("a frame").into_data();
    }
    let mut upgrade = format!("ws://{http}{target}").into_client_request().expect("an address");
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().expect("a name");
        upgrade.headers_mut().insert(name, value.parse().expect("a value"));
    }
    let (mut socket, _) = within(tokio_tungstenite::connect_async(upgrade)).await.expect("an upgrade");
    within(socket.send(question)).await.expect("written");
    let reply = within(socket.next()).await.expect("a reply").expect("a frame");
    reply.into_data()
}

fn access() -> Access {
    let mut trusted = issuer(ISS, Accepted::Hs256, KeySource::Secret(SECRET.into()));
    trusted.leeway = Duration::ZERO;
    let mut given = Access::default();
    given.keys = vec![key("backend", KEY, everything())];
    given.issuers = vec![trusted];
    given
}

async fn looking_at(places: TokenPlaces) -> TestServer {
    TestServer::with(move |config| {
        config.authenticator = std::sync::Arc::new(fanwire::auth::BuiltIn::with(access()).expect("legal"));
        config.api.token_sources = places.clone().into();
        config.sse.token_sources = places.clone().into();
        config.mqtt_front.token_sources = places.clone().into();
        config.bayeux.token_sources = places.into();
    })
    .await
}

fn token() -> String {
    sign(&header(Algorithm::HS256, None), &claims(ISS), &encoding_key(Algorithm::HS256))
}

#[tokio::test]
async fn a_token_is_read_where_it_is_looked_for_and_nowhere_else() {
    for (cookie, query) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut places = TokenPlaces::default();
        places.cookie = cookie.then(|| COOKIE.to_owned());
        places.query = query;
        let server = looking_at(places).await;
        for door in DOORS {
            for right in [KEY, &token()] {
                let by_cookie = is_let_in(server.http, door, Place::Cookie, right).await;
                assert_eq!(by_cookie, cookie, "cookie, {door}");
                let by_query = is_let_in(server.http, door, Place::Query, right).await;
                assert_eq!(by_query, query, "query, {door}");
            }
        }
    }
}

#[tokio::test]
async fn wrong_and_expired_tokens_are_refused_there_too() {
    let mut places = TokenPlaces::default();
    places.cookie = Some(COOKIE.to_owned());
    places.query = true;
    let server = looking_at(places).await;
    let with = |name: &str, value: Value, secret: &str| {
        let mut all = claims(ISS);
        all[name] = value;
        sign(&header(Algorithm::HS256, None), &all, &EncodingKey::from_secret(secret.as_bytes()))
    };
    let wrong = [
        ("a key that nobody has", "made-up".to_owned()),
        ("no token at all", String::new()),
        ("expired", with("exp", json!(now() - 1), SECRET)),
        ("another secret", with("sub", json!("ann"), "another secret of thirty-two bytes.")),
        ("a foreign issuer", with("iss", json!("https://foreign.example"), SECRET)),
        ("cut short", token().chars().take(60).collect()),
    ];
    for door in DOORS {
        for place in [Place::Cookie, Place::Query] {
            for (what, token) in &wrong {
                assert!(!is_let_in(server.http, door, place, token).await, "{what} in the {place:?}, {door}");
            }
        }
    }
}

/// A page of another origin makes the browser send the cookie along with a POST that it need not ask for first.
#[tokio::test]
async fn a_cookie_does_nothing_for_a_foreign_page() {
    let mut given = TokenPlaces::default();
    given.cookie = Some(COOKIE.to_owned());
    given.query = true;
    let server = looking_at(given).await;
    let cookie = format!("{COOKIE}={}", token());
    // That is what a configuration with rights has.
    let own = TestServer::with(|config| {
        config.authenticator = std::sync::Arc::new(fanwire::auth::BuiltIn::with(access()).expect("legal"));
        let mut places = TokenPlaces::default();
        places.cookie = Some(COOKIE.to_owned());
        places.query = true;
        config.api.token_sources = places.into();
        config.api.origins = fanwire::edge::OriginPolicy::SameOrigin;
    })
    .await;
    let target = "/v1/publish/orders/ann/1";
    let headers = [("cookie", &*cookie), ("origin", "https://evil.example"), ("content-type", "text/plain")];
    assert_eq!(request(own.http, "POST", target, &headers, "x").await.code(), "origin_not_allowed");
    assert_eq!(request(own.http, "POST", target, &headers[..1], "x").await.status, 200);
    let shake = json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"]}]);
    let headers =
        [("cookie", &*cookie), ("content-type", "application/json"), ("origin", "https://evil.example")];
    let body = shake.to_string();
    assert_eq!(request(server.http, "POST", "/cometd", &headers, body.clone()).await.status, 403);
    let reply = request(server.http, "POST", "/cometd", &headers[..2], body.clone()).await.json();
    assert_eq!(reply[0]["successful"], true, "{reply}");
    let polled = format!("/cometd?access_token={}", token());
    let reply = request(server.http, "POST", &polled, &headers[1..2], body.clone()).await.json();
    assert_eq!(reply[0]["successful"], true, "{reply}");
    let wrong = "/cometd?access_token=wrong";
    let reply = request(server.http, "POST", wrong, &headers[1..2], body).await.json();
    assert_eq!(reply[0]["error"], "403::handshake_denied", "{reply}");
}

#[tokio::test]
async fn no_token_reaches_a_log_line_however_much_is_logged() {
    for format in ["text", "json"] {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let hash = fanwire::auth::KeyHash::of(KEY.as_bytes());
        let text = format!(
            "[logging]\nlevel = \"trace\"\nformat = \"{format}\"\n[auth]\ncookie = \"{COOKIE}\"\naccess_token = true\n\
             [[keys]]\nid = \"k\"\nhash = \"{hash}\"\nrights = [{{ actions = [\"publish\", \"subscribe\", \"history\"], channels = [\"#\"] }}]\n\
             [[issuers]]\niss = \"{ISS}\"\naud = \"fanwire\"\nalgorithms = [\"HS256\"]\nsecret = \"{SECRET}\"\n"
        );
        std::fs::write(file.path(), text).expect("written");
        let log = tempfile::NamedTempFile::new().expect("a file");
        let arguments = ["--config", file.path().to_str().expect("a path")];
        let mut server = Process::start_logging(&arguments, log.reopen().expect("the same file")).await;
        let expired = {
            let mut all = claims(ISS);
            all["exp"] = json!(now() - 3600);
            sign(&header(Algorithm::HS256, None), &all, &encoding_key(Algorithm::HS256))
        };
        let right = token();
        let wrong = "a-key-that-nobody-has";
        for door in DOORS {
            for place in [Place::Cookie, Place::Query] {
                assert!(is_let_in(server.http, door, place, &right).await, "{place:?}, {door}");
                assert!(is_let_in(server.http, door, place, KEY).await, "{place:?}, {door}");
                assert!(!is_let_in(server.http, door, place, &expired).await, "{place:?}, {door}");
                assert!(!is_let_in(server.http, door, place, wrong).await, "{place:?}, {door}");
            }
        }
        // What is no request at all, or none that is answered.
        for line in ["GET /nowhere", "BREW /v1/publish/a", "GET /sse", "GET /v1/history/a?wait=x&b=c"] {
            let joint = if line.contains('?') { '&' } else { '?' };
            let asked =
                format!("{line}{joint}access_token={right} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            crate::support::http::raw(server.http, asked.as_bytes()).await;
        }
        server.signal(rustix::process::Signal::TERM);
        assert!(server.exit().await.success());

        let log = std::fs::read_to_string(log.path()).expect("UTF-8");
        assert!(log.contains("fanwire") && log.contains("TRACE"), "everything is logged: {log}");
        // Of a token every part counts, and the start of each.
        let parts = right.split('.').chain(expired.split('.')).map(|part| &part[..20]);
        for secret in parts.chain([KEY, wrong, SECRET, "access_token="]) {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret}");
        }
    }
}
