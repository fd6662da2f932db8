//! A server with a proxy of the page `docs/deploy.md` in front, and what has to pass through it.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::sleep;

use crate::support::process::Process;
use crate::support::within;

/// Header with which a client says that it is another one. A proxy adds to it, so that it is no word of the proxy's.
const CLIENT: &str = "X-Forwarded-For: 203.0.113.5";

/// How long nothing at all is said: `FW_TEST_QUIET_SECS` (default 3), which is longer than the second that proxies are
/// told to wait where the recipe says nothing. With more than 60 they are left as they come.
fn quiet() -> Duration {
    let seconds = std::env::var("FW_TEST_QUIET_SECS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

/// What is told to a proxy in front of the recipe, so that it has no patience of its own; or nothing, where it is to be
/// seen that its own is not enough.
pub(crate) fn impatient(line: &str) -> &str {
    if quiet() > Duration::from_secs(60) { "" } else { line }
}

fn free_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

/// Whether `/v1/connections` shows the client that was named.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    Yes,
    No,
}

pub(crate) struct Behind {
    pub(crate) server: Process,
    pub(crate) web: SocketAddr,
    pub(crate) mqtt: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
    proxy: Option<Child>,
}

type StreamLines = Lines<BufReader<ChildStdout>>;

impl Behind {
    /// A server that says nothing by itself for ten minutes.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("fanwire.toml");
        let text = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n[sse]\nkeep_alive = 0\n\
                    [bayeux.timing]\ntimeout = \"10m\"\n";
        std::fs::write(&config, text).expect("written");
        let server = Process::start(&["--config", config.to_str().expect("UTF-8")]).await;
        Behind { server, web: free_port(), mqtt: free_port(), folder, proxy: None }
    }

    /// Writes the configuration, starts the proxy with the file's path behind these arguments, and waits for its port.
    pub(crate) async fn proxy(&mut self, program: &str, config: &str, arguments: &[&str]) {
        let file = self.folder.path().join("proxy.conf");
        std::fs::write(&file, config).expect("written");
        let mut command = Command::new(program);
        command.args(arguments).arg(&file).current_dir(self.folder.path());
        command.env("HOME", self.folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        self.proxy = Some(command.kill_on_drop(true).spawn().expect("it runs"));
        within(async {
            while TcpStream::connect(self.web).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    pub(crate) fn ports(&self) -> [(&'static str, String); 1] {
        [("127.0.0.1:8080", self.server.http.to_string())]
    }

    fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.web.port())
    }

    /// Streams, WebSockets and a held poll get a message through the proxy, after nothing was said for long.
    pub(crate) async fn everything_of_http_passes(&self, named: Named) {
        let mut lines = self.stream().await;
        let mut websocket = self.mqtt_in_a_websocket().await;
        let poll = self.held_poll().await;
        let listed = self.curl(&[&self.url("/v1/connections")]).await;
        assert_eq!(
            listed.matches("203.0.113.5").count(),
            if named == Named::Yes { 3 } else { 0 },
            "{listed}"
        );

        sleep(quiet()).await;
        self.curl(&["-d", "now", "-H", "content-type: text/plain", &self.url("/v1/publish/a")]).await;
        while within(lines.next_line()).await.expect("UTF-8").expect("the stream goes on") != "data: now" {}
        let mut publish = [0; 10];
        within(websocket.read_exact(&mut publish)).await.expect("the WebSocket goes on");
        assert_eq!(&publish, b"\x82\x08\x30\x06\0\x01anow");
        let polled = within(poll.wait_with_output()).await.expect("curl ends");
        let polled = String::from_utf8(polled.stdout).expect("UTF-8");
        assert!(polled.contains("now") && polled.ends_with(" 200"), "{polled}");
    }

    async fn curl(&self, arguments: &[&str]) -> String {
        let output = within(Command::new("curl").args(["-s", "-H", CLIENT]).args(arguments).output()).await;
        String::from_utf8(output.expect("curl is installed").stdout).expect("UTF-8")
    }

    /// Server-Sent Events on `a`. The first line is there at once, not with the next of them.
    async fn stream(&self) -> StreamLines {
        let mut curl = Command::new("curl");
        curl.args(["-sN", "-H", CLIENT, &self.url("/sse/a")]).stdout(Stdio::piped()).kill_on_drop(true);
        let mut curl = curl.spawn().expect("curl is installed");
        let mut lines = BufReader::new(curl.stdout.take().expect("piped")).lines();
        within(lines.next_line()).await.expect("UTF-8").expect("the stream begins");
        // It lives as long as this process does, or until its stream ends.
        tokio::spawn(async move { curl.wait().await });
        lines
    }

    /// A client of MQTT in a WebSocket, subscribed to `a`, that has no keep alive. Masks change nothing.
    async fn mqtt_in_a_websocket(&self) -> BufReader<TcpStream> {
        let mut websocket = BufReader::new(TcpStream::connect(self.web).await.expect("it listens"));
        let upgrade = format!(
            "GET /mqtt HTTP/1.1\r\nHost: localhost:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ZmFud2lyZS1sb2FkLTAwMQ==\r\n\
             Sec-WebSocket-Protocol: mqtt\r\n{CLIENT}\r\n\r\n",
            self.web.port()
        );
        websocket.write_all(upgrade.as_bytes()).await.expect("written");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(within(websocket.read_line(&mut head)).await.expect("UTF-8") > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let (connect, subscribe) =
            (&b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01c"[..], &b"\x82\x06\0\x01\0\x01a\0"[..]);
        for (packet, expected) in [(connect, &b"\x20\x02\0\0"[..]), (subscribe, b"\x90\x03\0\x01\0")] {
            let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("short");
            let frame = [&[0x82, 0x80 | length(packet), 0, 0, 0, 0][..], packet].concat();
            websocket.write_all(&frame).await.expect("written");
            let mut answer = vec![0; expected.len() + 2];
            within(websocket.read_exact(&mut answer)).await.expect("answered");
            assert_eq!(answer, [&[0x82, length(expected)][..], expected].concat());
        }
        websocket
    }

    /// A Bayeux session by long-polling, subscribed to `/a`, whose connect the server holds.
    async fn held_poll(&self) -> Child {
        let jar = self.folder.path().join("cookies");
        let jar = jar.to_str().expect("UTF-8");
        let (url, json) = (self.url("/cometd"), "content-type: application/json");
        let ask = |message: String| {
            let message = format!("[{message}]");
            ["-b", jar, "-c", jar, "-H", json, "-d", &message, &url].map(str::to_owned).to_vec()
        };
        let handshake =
            r#"{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"]}"#;
        let asked = ask(handshake.to_owned());
        let shaken = self.curl(&asked.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let id = shaken.split_once("\"clientId\":\"").and_then(|(_, rest)| rest.split_once('"'));
        let id = id.unwrap_or_else(|| panic!("{shaken}")).0.to_owned();
        let subscribe = format!(r#"{{"channel":"/meta/subscribe","clientId":"{id}","subscription":"/a"}}"#);
        let connect =
            format!(r#"{{"channel":"/meta/connect","clientId":"{id}","connectionType":"long-polling"}}"#);
        for message in [subscribe, connect.clone()] {
            let asked = ask(message);
            let answer = self.curl(&asked.iter().map(String::as_str).collect::<Vec<_>>()).await;
            assert!(answer.contains("\"successful\":true"), "{answer}");
        }
        let mut held = Command::new("curl");
        held.args(["-s", "-w", " %{http_code}", "-H", CLIENT]).args(ask(connect));
        held.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("curl is installed")
    }

    /// MQTT over TCP, as long without a word.
    pub(crate) async fn mqtt_passes(&self) {
        let mut stream = TcpStream::connect(self.mqtt).await.expect("it listens");
        stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\0\0\0\x01m").await.expect("written");
        let mut connack = [0; 4];
        within(stream.read_exact(&mut connack)).await.expect("answered");
        assert_eq!(connack, [0x20, 2, 0, 0]);
        sleep(quiet()).await;
        stream.write_all(b"\xc0\0").await.expect("written");
        let mut pingresp = [0; 2];
        within(stream.read_exact(&mut pingresp)).await.expect("answered");
        assert_eq!(pingresp, [0xd0, 0]);
    }
}
