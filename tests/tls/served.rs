//! Every protocol inside of TLS, each with a client that people use.

use std::net::SocketAddr;
use std::process::Stdio;

use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use crate::support::process::Process;
use crate::support::tls::{Asking, Authority};
use crate::support::within;

/// A server with a certificate for `localhost`, and what the configuration says besides.
pub(crate) struct Secured {
    pub(crate) server: Process,
    pub(crate) authority: Authority,
    pub(crate) folder: tempfile::TempDir,
}

impl Secured {
    pub(crate) async fn start(rest: &str) -> Self {
        Self::start_after("true", rest).await
    }

    /// In a shell that ran `before` first: to set limits.
    pub(crate) async fn start_after(before: &str, rest: &str) -> Self {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
        authority.issue(&["localhost"]).write(folder.path(), "server");
        let config = folder.path().join("fanwire.toml");
        let tls = "[tls]\ncert_file = \"server.crt\"\nkey_file = \"server.key\"\n";
        std::fs::write(&config, format!("{tls}{rest}")).expect("written");
        let arguments = ["--config", config.to_str().expect("UTF-8")];
        let server = Process::start_after_with(before, &arguments).await;
        Secured { server, authority, folder }
    }

    /// Of HTTP, with its name.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.server.https.expect("TLS is spoken").port())
    }

    pub(crate) async fn curl(&self, arguments: &[&str]) -> String {
        let ca = ["-sS", "--max-time", "10", "--cacert", self.authority.file()];
        let mut command = Command::new("curl");
        let output = within(command.args(ca).args(arguments).output()).await.expect("curl is installed");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        format!("{told}{}", String::from_utf8_lossy(&output.stderr))
    }

    async fn publish(&self, text: &str) {
        let url = self.url("/v1/publish/a");
        let said = self.curl(&["-d", text, "-H", "content-type: text/plain", &url]).await;
        assert!(said.contains("\"receivers\":1"), "{said}");
    }
}

#[tokio::test]
async fn curl_speaks_each_version_of_http_and_of_tls() {
    let it = Secured::start("").await;
    let format = ["-o", "/dev/null", "-w", "%{http_version} %{http_code} %{ssl_verify_result}"];
    for (version, expected) in [("--http1.1", "1.1 200 0"), ("--http2", "2 200 0")] {
        for tls in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
            let said = it.curl(&[&format, tls, &[version, &it.url("/healthz")]].concat()).await;
            assert_eq!(said, expected, "{tls:?}");
        }
    }
    // Nothing else is spoken there.
    let plain = it.curl(&[&format!("http://{}/healthz", it.server.http)]).await;
    assert!(!plain.contains("ok"), "{plain}");
}

#[tokio::test]
async fn event_streams_are_taken_over_and_held_polls_parked_inside_of_tls() {
    let it = Secured::start("").await;
    for version in ["--http1.1", "--http2"] {
        let mut command = Command::new("curl");
        command.args([
            "-sSN",
            version,
            "--max-time",
            "10",
            "--cacert",
            it.authority.file(),
            &it.url("/sse/a"),
        ]);
        let mut curl = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("curl is installed");
        let mut lines = BufReader::new(curl.stdout.take().expect("piped")).lines();
        let mut data = async || loop {
            let line = within(lines.next_line()).await.expect("UTF-8").expect("the stream goes on");
            if let Some(data) = line.strip_prefix("data: ") {
                return data.to_owned();
            }
            if line.starts_with("id: ") || line.starts_with(':') {
                return String::new();
            }
        };
        // The first that is said, once it listens.
        assert_eq!(data().await, "", "{version}");
        for text in ["one", "two"] {
            it.publish(text).await;
            let mut said = data().await;
            while said.is_empty() {
                said = data().await;
            }
            assert_eq!(said, text, "{version}");
        }
        curl.kill().await.expect("it runs");
        within(async {
            while !it.curl(&[&it.url("/metrics")]).await.contains("fanwire_sse_streams 0") {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn requests_one_after_another_and_at_once_are_answered_on_one_connection() {
    let it = Secured::start("").await;
    let to = it.server.https.expect("TLS is spoken");
    for version in [&TLS12, &TLS13] {
        let asking = Asking { version, protocols: &["http/1.1"], ..Asking::default() };
        let mut stream = it.authority.connect(to, asking).await.expect("connected");
        let body = "x".repeat(100_000);
        let post = format!(
            "POST /v1/publish/b HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let get = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let last = "GET /v1/history/b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(format!("{get}{post}{get}{post}{last}").as_bytes()).await.expect("written");
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.expect("an end that was said");
        assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 5, "{}", &answer[..answer.len().min(2000)]);
        assert!(answer.len() > 100_000, "{}", answer.len());
    }
}

async fn mosquitto(it: &Secured, to: SocketAddr, alpn: Option<&str>) -> String {
    let mut command = Command::new("mosquitto_sub");
    let port = to.port().to_string();
    command.args([
        "-h",
        "localhost",
        "-p",
        &port,
        "--cafile",
        it.authority.file(),
        "-t",
        "a",
        "-C",
        "1",
        "-W",
        "10",
    ]);
    command.args(alpn.iter().flat_map(|name| ["--tls-alpn", name]));
    let waiting =
        tokio::spawn(async move { command.output().await.expect("mosquitto-clients are installed") });
    let url = it.url("/v1/publish/a");
    loop {
        let said = it.curl(&["-d", "hi", "-H", "content-type: text/plain", &url]).await;
        if said.contains("\"receivers\":1") {
            break;
        }
        assert!(said.contains("\"receivers\":0") && !waiting.is_finished(), "{said}");
    }
    let output = within(waiting).await.expect("it ends");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test]
async fn mqtt_has_a_port_of_its_own_or_one_of_its_own_for_tls_or_that_of_http() {
    let both = free_port();
    let cases = [
        (String::new(), None),
        ("[http]\ntls = \"required\"\n[mqtt]\ntls_address = \"127.0.0.1:0\"\n".to_owned(), None),
        (
            format!(
                "[http]\ntls = \"required\"\ntls_address = \"{both}\"\n[mqtt]\ntls_address = \"{both}\"\n"
            ),
            Some(both),
        ),
    ];
    for (rest, shared) in cases {
        let it = Secured::start(&rest).await;
        let to = it.server.mqtts.expect("TLS is spoken");
        assert_eq!(mosquitto(&it, to, None).await, "hi\n", "{rest}");
        if let Some(shared) = shared {
            assert_eq!(to, shared);
            assert_eq!(mosquitto(&it, to, Some("mqtt")).await, "hi\n");
            for version in ["--http1.1", "--http2"] {
                let url = format!("https://localhost:{}/healthz", shared.port());
                assert_eq!(it.curl(&[version, &url]).await, "ok\n");
            }
        }
    }
}

fn free_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

#[tokio::test]
async fn an_address_may_speak_both() {
    let it = Secured::start("[http]\ntls = \"optional\"\n[mqtt]\ntls = \"optional\"\n").await;
    assert_eq!(it.server.https, Some(it.server.http));
    assert_eq!(it.server.mqtts, Some(it.server.mqtt));
    assert_eq!(it.curl(&[&it.url("/healthz")]).await, "ok\n");
    assert_eq!(it.curl(&[&format!("http://localhost:{}/healthz", it.server.http.port())]).await, "ok\n");
    assert_eq!(mosquitto(&it, it.server.mqtt, None).await, "hi\n");
    let mut client = crate::support::mqtt::Client::connect(it.server.mqtt, "plain").await;
    client.subscribe("a", rumqttc::QoS::AtMostOnce).await;
    it.publish("plain").await;
    assert_eq!(client.payload().await, "plain");
}

#[tokio::test]
async fn a_client_that_says_goodbye_is_gone_and_one_that_stops_reading_is_given_up() {
    let it = Secured::start("").await;
    let to = it.server.https.expect("TLS is spoken");
    let asking = Asking { protocols: &["http/1.1"], ..Asking::default() };
    let mut stream = it.authority.connect(to, asking).await.expect("connected");
    stream.write_all(b"GET /sse/c HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("written");
    let streams = async |count: u32| {
        let wanted = format!("fanwire_sse_streams {count}\n");
        within(async { while !it.curl(&[&it.url("/metrics")]).await.contains(&wanted) {} }).await;
    };
    streams(1).await;
    // The goodbye of TLS alone; the socket stays.
    stream.shutdown().await.expect("said");
    streams(0).await;
    drop(stream);
    let mut stream = it.authority.connect(to, Asking::default()).await.expect("connected");
    stream.write_all(b"GET /sse/c HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("written");
    streams(1).await;
    let large = it.folder.path().join("large");
    std::fs::write(&large, "x".repeat(900_000)).expect("written");
    let data = format!("@{}", large.display());
    for _ in 0..4 {
        it.curl(&["--data-binary", &data, "-H", "content-type: text/plain", &it.url("/v1/publish/c")]).await;
    }
    streams(0).await;
}

#[tokio::test]
async fn the_access_log_says_which_version_of_tls_is_spoken() {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let before = format!("exec 2>{}", log.path().display());
    let it = Secured::start_after(&before, "[logging]\naccess = true\nformat = \"json\"\n").await;
    for version in ["1.2", "1.3"] {
        let said =
            it.curl(&[&format!("--tlsv{version}"), "--tls-max", version, &it.url("/v1/channels")]).await;
        assert!(said.contains("\"channels\""), "{said}");
        let expected = format!("\"tls\":\"{version}\"");
        within(async {
            while !std::fs::read_to_string(log.path()).expect("a log").contains(&expected) {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

/// What `/v1/connections` says of TLS, once that many are listed.
async fn encryptions(it: &Secured, many: usize) -> Vec<serde_json::Value> {
    within(async {
        loop {
            let listed = it.curl(&[&it.url("/v1/connections")]).await;
            let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
            let connections = listed["connections"].as_array().expect("a list");
            if connections.len() == many {
                let tls = connections.iter().map(|connection| {
                    serde_json::json!([
                        connection["protocol"],
                        connection["remote"]["tls"]["version"],
                        connection["remote"]["tls"]["cipher"]
                    ])
                });
                break tls.collect();
            }
        }
    })
    .await
}

#[tokio::test]
async fn connections_show_the_version_of_tls_and_the_cipher() {
    let it = Secured::start("[http]\ntls = \"optional\"\n[mqtt]\ntls = \"optional\"\n").await;
    let mut connack = [0; 4];
    for (version, name, cipher) in [
        (&TLS12, "1.2", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        (&TLS13, "1.3", "TLS_AES_256_GCM_SHA384"),
    ] {
        let asking = || Asking { version, ..Asking::default() };
        let mut mqtt = it.authority.connect(it.server.mqtt, asking()).await.expect("connected");
        mqtt.write_all(&crate::support::mqtt::connect_packet("c")).await.expect("written");
        within(mqtt.read_exact(&mut connack)).await.expect("answered");
        assert_eq!(encryptions(&it, 1).await, [serde_json::json!(["mqtt", name, cipher])]);
        drop(mqtt);
        encryptions(&it, 0).await;

        let to = it.server.https.expect("TLS is spoken");
        let mut stream = it.authority.connect(to, asking()).await.expect("connected");
        stream.write_all(b"GET /sse/a HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("written");
        assert_eq!(encryptions(&it, 1).await, [serde_json::json!(["sse", name, cipher])]);
        drop(stream);
        encryptions(&it, 0).await;

        let shake =
            r#"[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"]}]"#;
        let most = if name == "1.2" { "1.2" } else { "1.3" };
        let version = format!("--tlsv{name}");
        let json = "content-type: application/json";
        let said = it.curl(&[&version, "--tls-max", most, "-H", json, "-d", shake, &it.url("/cometd")]).await;
        assert!(said.contains("\"successful\":true"), "{said}");
        let shown = encryptions(&it, 1).await;
        assert_eq!((&shown[0][0], &shown[0][1]), (&"bayeux".into(), &name.into()), "{shown:?}");
        let listed = it.curl(&[&it.url("/v1/connections")]).await;
        let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
        let id = listed["connections"][0]["id"].as_str().expect("an id");
        it.curl(&["-X", "DELETE", &it.url(&format!("/v1/connections/{id}"))]).await;
        encryptions(&it, 0).await;
    }
    // Without TLS nothing is said of it.
    let mut plain = tokio::net::TcpStream::connect(it.server.mqtt).await.expect("it listens");
    plain.write_all(&crate::support::mqtt::connect_packet("c")).await.expect("written");
    within(plain.read_exact(&mut connack)).await.expect("answered");
    assert_eq!(encryptions(&it, 1).await, [serde_json::json!(["mqtt", null, null])]);
}
