//! Proxies whose word counts for where clients come from.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::served::Secured;
use crate::support::process::Process;
use crate::support::tls::Asking;
use crate::support::within;

async fn started(config: &str) -> (Process, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("fanwire.toml");
    std::fs::write(&file, config).expect("written");
    (Process::start(&["--config", file.to_str().expect("UTF-8")]).await, folder)
}

async fn said(to: SocketAddr, start: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    stream.write_all(start).await.expect("written");
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    answer
}

async fn status(to: SocketAddr, before: &[u8], headers: &str) -> String {
    let get = format!("GET /v1/history/a HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
    let answer = said(to, &[before, get.as_bytes()].concat()).await;
    String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or_default().to_owned()
}

fn v2(source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    header.extend(source);
    header.extend([10, 0, 0, 1, 16, 0, 31, 144]);
    header
}

/// One request in a minute for each address: the second one is 429.
const ONE_EACH: &str = "[limits]\nrequests_per_address = 1\nrequest_burst_per_address = 1\n";

#[tokio::test]
async fn limits_count_the_client_that_a_trusted_proxy_names() {
    let trusting = format!("[server]\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n{ONE_EACH}");
    let (server, _folder) = started(&trusting).await;
    let to = server.http;
    let one = |client: &str| format!("x-forwarded-for: {client}\r\n");
    assert_eq!(status(to, b"", &one("203.0.113.1")).await, "200");
    assert_eq!(status(to, b"", &one("203.0.113.1")).await, "429");
    assert_eq!(status(to, b"", &one("203.0.113.2, 10.0.0.9")).await, "200");
    // What a client wrote in front of it makes no other of it, and another header neither.
    assert_eq!(status(to, b"", &one("1.2.3.4, 203.0.113.2")).await, "429");
    assert_eq!(status(to, b"", &format!("{}forwarded: for=9.9.9.9\r\n", one("203.0.113.2"))).await, "429");
    for (index, header) in [b"PROXY TCP4 198.51.100.0 10.0.0.1 4096 8080\r\n".to_vec(), v2([198, 51, 100, 1])]
        .into_iter()
        .enumerate()
    {
        assert_eq!(status(to, &header, "").await, "200", "{index}");
        // A client that comes so is none of the trusted: its own headers are words.
        assert_eq!(status(to, &header, &one("203.0.113.77")).await, "429", "{index}");
    }
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let (server, _folder) = started(ONE_EACH).await;
    assert_eq!(status(server.http, b"", "x-forwarded-for: 203.0.113.1\r\n").await, "200");
    assert_eq!(status(server.http, b"", "x-forwarded-for: 203.0.113.2\r\n").await, "429");
    let header = b"PROXY TCP4 198.51.100.1 10.0.0.1 4096 8080\r\n";
    assert_eq!(status(server.http, header, "").await, "400");
    let required = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = \"required\"\n";
    let (server, _folder) = started(required).await;
    assert_eq!(status(server.http, header, "").await, "200");
    assert_eq!(status(server.http, b"", "").await, "", "closed");
    assert_eq!(status(server.http, b"PROXY TCP4 nobody\r\n", "").await, "", "closed");
}

#[tokio::test]
async fn connections_show_where_mqtt_clients_come_from_also_inside_of_tls() {
    let it = Secured::start(
        "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n[mqtt]\ntls = \"optional\"\n[http]\ntls = \"optional\"\n",
    )
    .await;
    let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c";
    let mut plain = TcpStream::connect(it.server.mqtt).await.expect("it listens");
    plain.write_all(&[&v2([198, 51, 100, 7])[..], connect].concat()).await.expect("written");
    let mut connack = [0; 4];
    within(plain.read_exact(&mut connack)).await.expect("answered");
    let listed = it.curl(&[&it.url("/v1/connections")]).await;
    assert!(listed.contains("198.51.100.7"), "{listed}");
    drop(plain);
    // The header stands before the handshake.
    let header = b"PROXY TCP6 2001:db8::7 ::1 4096 8883\r\n";
    let mut inside =
        it.authority.connect_after(it.server.mqtt, header, Asking::default()).await.expect("connected");
    inside.write_all(connect).await.expect("written");
    within(inside.read_exact(&mut connack)).await.expect("answered");
    let listed = it.curl(&[&it.url("/v1/connections")]).await;
    assert!(listed.contains("2001:db8::7"), "{listed}");
}

/// The head of the answer to a handshake of Bayeux by a page.
async fn shake(to: SocketAddr, headers: &str) -> String {
    let body =
        r#"[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"]}]"#;
    let post = format!(
        "POST /cometd HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    String::from_utf8_lossy(&said(to, post.as_bytes()).await).to_lowercase()
}

#[tokio::test]
async fn that_a_client_came_by_https_is_believed_of_a_trusted_proxy_alone() {
    // The server's own origin only, so that it is to be seen which that is.
    let own = "allowed_origins = []\nhosts = [\"localhost\"]\n";
    let (trusting, _one) = started(&format!("[server]\ntrusted_proxies = [\"127.0.0.1\"]\n{own}")).await;
    let (wary, _other) = started(&format!("[server]\n{own}")).await;
    for (server, proto, page, status, secure) in [
        (&trusting, "https", "https", "200", true),
        (&trusting, "https", "http", "403", false),
        (&trusting, "http", "http", "200", false),
        (&wary, "https", "http", "200", false),
    ] {
        let headers = format!("x-forwarded-proto: {proto}\r\norigin: {page}://localhost\r\n");
        let answer = shake(server.http, &headers).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{headers}{answer}");
        assert_eq!(answer.contains("; secure"), secure, "{headers}{answer}");
        let got = self::status(server.http, b"", &headers).await;
        assert_eq!(got, status, "{headers}");
    }
}

#[tokio::test]
async fn that_a_client_came_by_https_is_known_where_the_server_ends_tls() {
    let it = Secured::start("[server]\nallowed_origins = []\n").await;
    let origin = it.url("");
    for (page, status) in [(origin.clone(), "200"), (origin.replace("https", "http"), "403")] {
        let header = format!("origin: {page}");
        let asked = ["-o", "/dev/null", "-w", "%{http_code}", "-H", &header, &it.url("/v1/history/a")];
        assert_eq!(it.curl(&asked).await, status, "{page}");
    }
    let body =
        r#"[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"]}]"#;
    let head = it.curl(&["-i", "-H", "content-type: application/json", "-d", body, &it.url("/cometd")]).await;
    assert!(head.to_lowercase().contains("; secure"), "{head}");
}
