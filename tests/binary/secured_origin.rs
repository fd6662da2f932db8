//! Origins of GRIP behind TLS, and signatures that are made and checked with pairs of keys.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use futures_util::{SinkExt as _, StreamExt as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::support::http::{get, request};
use crate::support::process::Process;
use crate::support::tls::{Authority, TlsProxy};
use crate::support::within;

/// What an origin was asked, with the token that came with it.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

async fn origin() -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let asked = Asked::default();
    let all = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&all)));
        }
    });
    (address, asked)
}

async fn serve(mut stream: TcpStream, asked: Asked) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).to_string();
        let field = |name: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
        };
        let length = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let body = String::from_utf8_lossy(&body).to_string();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        asked.lock().expect("whole").push((path.clone(), field("grip-sig")));
        let (told, answer) = match (&*path, &*body) {
            ("/live", _) => (
                "content-type: text/plain\r\ngrip-hold: stream\r\ngrip-channel: room\r\ngrip-link: </next>; rel=next\r\n",
                "one,",
            ),
            ("/next", _) => ("", "three"),
            ("/socket", "OPEN\r\n") => (
                "content-type: application/websocket-events\r\nsec-websocket-extensions: grip\r\n",
                "OPEN\r\n",
            ),
            ("/socket", _) => ("content-type: application/websocket-events\r\n", "TEXT 7\r\nm:heard\r\n"),
            _ => ("", "page"),
        };
        let answer = format!("HTTP/1.1 200 OK\r\n{told}content-length: {}\r\n\r\n{answer}", answer.len());
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// A private key as `openssl ecparam -genkey` writes it: that of PKCS #8 without what stands around it.
fn as_openssl(pair: &KeyPair) -> String {
    let whole = pair.serialize_der();
    // An octet string in it has the key, which begins as a sequence with version 1.
    let at = whole.windows(5).position(|bytes| bytes[0] == 0x30 && bytes[2..] == [2, 1, 1]).expect("a key");
    let key = &whole[at..at + 2 + usize::from(whole[at + 1])];
    let text = base64::engine::general_purpose::STANDARD.encode(key);
    format!(
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n\
         -----BEGIN EC PRIVATE KEY-----\n{text}\n-----END EC PRIVATE KEY-----\n"
    )
}

fn is_signed_by(token: &str, public: &str) -> bool {
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_issuer(&["shop"]);
    let key = DecodingKey::from_ec_pem(public.as_bytes()).expect("a public key");
    jsonwebtoken::decode::<Value>(token, &key, &validation).is_ok()
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("written");
}

async fn serving(folder: &Path, routes: &str) -> Process {
    write(folder, "fanwire.toml", routes);
    Process::start(&["--config", folder.join("fanwire.toml").to_str().expect("plain")]).await
}

fn route(host: &str, port: u16, trust: &str) -> String {
    format!(
        "[[gateway.routes]]\nid = \"{host}\"\ndialect = \"grip\"\nhost = \"{host}\"\npath = \"/**\"\n{trust}\n\
         origin = \"https://{}:{port}\"\n",
        if host.starts_with("address") { "127.0.0.1" } else { "localhost" }
    )
}

async fn status(server: &Process, host: &str) -> u16 {
    let mut stream = TcpStream::connect(server.http).await.expect("it listens");
    let head = format!("GET /page HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.expect("answered");
    answer.split(' ').nth(1).expect("a status").parse().expect("a number")
}

#[tokio::test]
async fn origins_are_trusted_as_their_route_says() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (plain, asked) = origin().await;
    let port = TlsProxy::start(authority.issue(&["localhost"]), plain).await.address.port();
    let trusts = |authority: &Authority| format!("tls.ca_file = \"{}\"", authority.file());
    let folder = tempfile::tempdir().expect("a folder");
    let routes = [
        route("known.example", port, &trusts(&authority)),
        route("foreign.example", port, &trusts(&other)),
        // The system's authorities.
        route("unsaid.example", port, ""),
        // The certificate is for another name.
        route("address.example", port, &trusts(&authority)),
        route("address.anyone.example", port, "tls.insecure = true"),
    ];
    let server = serving(folder.path(), &routes.concat()).await;
    for (host, expected) in [
        ("known.example", 200),
        ("foreign.example", 502),
        ("unsaid.example", 502),
        ("address.example", 502),
        ("address.anyone.example", 200),
    ] {
        assert_eq!(status(&server, host).await, expected, "{host}");
    }
    assert_eq!(asked.lock().expect("whole").len(), 2, "nobody else is asked anything");
}

#[tokio::test]
async fn all_that_an_origin_behind_tls_is_asked_is_signed_with_a_private_key() {
    let authority = Authority::new();
    let (plain, asked) = origin().await;
    let port = TlsProxy::start(authority.issue(&["localhost"]), plain).await.address.port();
    let folder = tempfile::tempdir().expect("a folder");
    let (own, backend) = (KeyPair::generate().expect("P-256"), KeyPair::generate().expect("P-256"));
    write(folder.path(), "own.pem", &as_openssl(&own));
    write(folder.path(), "backend.pem", &backend.public_key_pem());
    let grip = "[gateway.grip]\nsig_iss = \"shop\"\nsig_key_file = \"own.pem\"\n\
        [[gateway.grip.control_keys]]\niss = \"backend\"\nkey_file = \"backend.pem\"\nchannels = [\"room\"]\n";
    let ca = authority.file();
    let route = format!(
        "[[gateway.routes]]\nid = \"live\"\ndialect = \"grip\"\npath = \"/**\"\ntls.ca_file = \"{ca}\"\n\
         origin = \"https://localhost:{port}\"\n"
    );
    let server = serving(folder.path(), &format!("{grip}{route}")).await;

    let mut stream = TcpStream::connect(server.http).await.expect("it listens");
    let head = format!("GET /live HTTP/1.1\r\nHost: {}\r\n\r\n", server.http);
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut got = Vec::new();
    let mut until = async |end: &str| {
        while !String::from_utf8_lossy(&got).contains(end) {
            assert_ne!(within(stream.read_buf(&mut got)).await.expect("it stays"), 0, "{end}");
        }
    };
    until("one,").await;
    let publish = async |signer: &KeyPair, what: Value| {
        let exp = std::time::UNIX_EPOCH.elapsed().expect("a time").as_secs() + 60;
        let key = EncodingKey::from_ec_der(&signer.serialize_der());
        let claims = json!({"iss": "backend", "exp": exp});
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key).expect("a token");
        let items = json!({"items": [{"channel": "room", "http-stream": what}]}).to_string();
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", &*bearer)];
        request(server.http, "POST", "/grip/publish/", &headers, items).await.status
    };
    // The stream is held a moment after its first piece.
    within(async {
        while !get(server.http, "/metrics").await.text().contains("fanwire_grip_holds{mode=\"stream\"} 1\n") {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(publish(&own, json!({"content": "forged,"})).await, 401);
    assert_eq!(publish(&backend, json!({"content": "two,"})).await, 200);
    until("two,").await;
    // It goes on at its link, whose answer ends it.
    assert_eq!(publish(&backend, json!({"action": "hint"})).await, 200);
    until("three\r\n0\r\n\r\n").await;
    assert!(!String::from_utf8_lossy(&got).contains("forged"));

    let url = format!("ws://{}/socket", server.http);
    let (mut client, _) = within(tokio_tungstenite::connect_async(url)).await.expect("101");
    within(client.send(Message::text("hello"))).await.expect("sent");
    let heard = within(client.next()).await.expect("a message").expect("a frame");
    assert_eq!(heard, Message::text("heard"));

    let asked = std::mem::take(&mut *asked.lock().expect("whole"));
    let paths: Vec<&str> = asked.iter().map(|(path, _)| &**path).collect();
    assert_eq!(paths, ["/live", "/next", "/socket", "/socket"]);
    for (path, token) in &asked {
        let token = token.as_deref().expect("signed");
        assert!(is_signed_by(token, &own.public_key_pem()), "{path}: {token}");
        assert!(!is_signed_by(token, &backend.public_key_pem()), "{path}");
    }
}
