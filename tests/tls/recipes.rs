//! The recipes of `docs/deploy.md`, as they stand there, in the proxies that are installed here. A proxy that is not is
//! said to be skipped.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::support::process::Process;
use crate::support::within;

/// A block of the page by its language, the `index`th, with the ports of this test.
fn recipe(language: &str, index: usize, ports: &[(&str, String)]) -> String {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/deploy.md")).expect("the page");
    let block = page.split(&format!("```{language}\n")).nth(index + 1).expect("a recipe");
    let block = block.split("```").next().expect("an end");
    ports.iter().fold(block.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from} in {text}");
        text.replace(from, to)
    })
}

fn installed(program: &str) -> Option<String> {
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/bin"].map(|folder| format!("{folder}/{program}"));
    let found = found.into_iter().find(|path| Path::new(path).exists());
    if found.is_none() {
        println!("SKIPPED: {program} is not installed");
    }
    found
}

fn free_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

struct Behind {
    server: Process,
    web: SocketAddr,
    mqtt: SocketAddr,
    folder: tempfile::TempDir,
    proxy: Option<Child>,
}

impl Behind {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("fanwire.toml");
        std::fs::write(&config, "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n").expect("written");
        let server = Process::start(&["--config", config.to_str().expect("UTF-8")]).await;
        Behind { server, web: free_port(), mqtt: free_port(), folder, proxy: None }
    }

    /// Writes the configuration, starts the proxy with the file's path behind these arguments, and waits for its port.
    async fn proxy(&mut self, program: &str, config: &str, arguments: &[&str]) {
        let file = self.folder.path().join("proxy.conf");
        std::fs::write(&file, config).expect("written");
        let mut command = Command::new(program);
        command.args(arguments).arg(&file).current_dir(self.folder.path());
        command.env("HOME", self.folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        self.proxy = Some(command.kill_on_drop(true).spawn().expect("it runs"));
        within(async {
            while TcpStream::connect(self.web).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    async fn streams_and_websockets_pass(&self, names_clients: bool) {
        let url = |path: &str| format!("http://localhost:{}{path}", self.web.port());
        let client = "X-Forwarded-For: 203.0.113.5";
        let mut curl = Command::new("curl");
        curl.args(["-sN", "--max-time", "20", "-H", client, &url("/sse/a")]).stdout(Stdio::piped());
        let mut curl = curl.kill_on_drop(true).spawn().expect("curl is installed");
        let mut lines = BufReader::new(curl.stdout.take().expect("piped")).lines();
        let mut line = async || within(lines.next_line()).await.expect("UTF-8").expect("the stream goes on");
        // At once, not with the next of them.
        line().await;
        let mut websocket = TcpStream::connect(self.web).await.expect("it listens");
        let upgrade = format!(
            "GET /mqtt HTTP/1.1\r\nHost: localhost:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ZmFud2lyZS1sb2FkLTAwMQ==\r\n\
             Sec-WebSocket-Protocol: mqtt\r\n{client}\r\n\r\n",
            self.web.port()
        );
        websocket.write_all(upgrade.as_bytes()).await.expect("written");
        let mut websocket = BufReader::new(websocket);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(within(websocket.read_line(&mut head)).await.expect("UTF-8") > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // CONNECT in a frame whose mask changes nothing.
        websocket
            .write_all(b"\x82\x8f\0\0\0\0\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c")
            .await
            .expect("written");
        let mut connack = [0; 6];
        within(websocket.read_exact(&mut connack)).await.expect("answered");
        assert_eq!(connack, [0x82, 4, 0x20, 2, 0, 0]);
        let listed = within(Command::new("curl").args(["-s", &url("/v1/connections")]).output()).await;
        let listed = String::from_utf8(listed.expect("curl is installed").stdout).expect("UTF-8");
        assert_eq!(listed.matches("203.0.113.5").count(), if names_clients { 2 } else { 0 }, "{listed}");
        let publish = ["-s", "-d", "now", "-H", "content-type: text/plain", &url("/v1/publish/a")];
        within(Command::new("curl").args(publish).output()).await.expect("curl is installed");
        while line().await != "data: now" {}
    }

    async fn mqtt_passes(&self) {
        let mut stream = TcpStream::connect(self.mqtt).await.expect("it listens");
        stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01m").await.expect("written");
        let mut connack = [0; 4];
        within(stream.read_exact(&mut connack)).await.expect("answered");
        assert_eq!(connack, [0x20, 2, 0, 0]);
    }

    fn ports(&self) -> [(&'static str, String); 1] {
        [("127.0.0.1:8080", self.server.http.to_string())]
    }
}

#[tokio::test]
async fn nginx() {
    let Some(program) = installed("nginx") else { return };
    let mut it = Behind::start().await;
    let location = recipe("nginx", 0, &it.ports());
    let mqtt = recipe(
        "nginx",
        1,
        &[("127.0.0.1:11883", it.server.mqtt.to_string()), ("listen 1883", format!("listen {}", it.mqtt))],
    );
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let has_stream = Path::new(module).exists();
    let (load, stream) = match has_stream {
        true => (format!("load_module {module};"), format!("stream {{ {mqtt} }}")),
        false => {
            println!("SKIPPED: nginx has no module for streams here");
            (String::new(), String::new())
        }
    };
    let folder = it.folder.path().display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {folder}/{name};"))
        .concat();
    let config = format!(
        "{load} daemon off; master_process off; pid {folder}/pid; error_log {folder}/error; events {{}}\n\
         http {{ access_log off; {temporary} map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}\n\
         server {{ listen {}; {location} }} }}\n{stream}\n",
        it.web
    );
    it.proxy(&program, &config, &["-c"]).await;
    it.streams_and_websockets_pass(true).await;
    if has_stream {
        it.mqtt_passes().await;
    }
}

#[tokio::test]
async fn haproxy() {
    let Some(program) = installed("haproxy") else { return };
    let mut it = Behind::start().await;
    let mut ports = it.ports().to_vec();
    ports.extend([
        ("127.0.0.1:11883", it.server.mqtt.to_string()),
        ("bind :80\n", format!("bind {}\n", it.web)),
        ("bind :1883", format!("bind {}", it.mqtt)),
    ]);
    let config = format!("defaults\n    timeout connect 5s\n{}", recipe("haproxy", 0, &ports));
    it.proxy(&program, &config, &["-db", "-f"]).await;
    it.streams_and_websockets_pass(true).await;
    it.mqtt_passes().await;
}

#[tokio::test]
async fn apache() {
    let Some(program) = installed("apache2") else { return };
    let mut it = Behind::start().await;
    let mut ports = it.ports().to_vec();
    ports.push(("*:80", it.web.to_string()));
    let modules = ["mpm_event", "authz_core", "proxy", "proxy_http", "proxy_wstunnel", "rewrite"];
    let load = modules
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
        .concat();
    let folder = it.folder.path().display();
    let config = format!(
        "{load}ServerName localhost\nServerRoot {folder}\nPidFile {folder}/pid\nErrorLog {folder}/error\n\
         Mutex file:{folder}\nListen {}\n{}",
        it.web,
        recipe("apache", 0, &ports)
    );
    it.proxy(&program, &config, &["-X", "-f"]).await;
    it.streams_and_websockets_pass(true).await;
}

#[tokio::test]
async fn caddy() {
    let Some(program) = installed("caddy") else { return };
    let mut it = Behind::start().await;
    let mut ports = it.ports().to_vec();
    ports.push(("broker.example.org", format!("http://localhost:{}", it.web.port())));
    let config = format!("{{\n admin off\n}}\n{}", recipe("caddyfile", 0, &ports));
    it.proxy(&program, &config, &["run", "--adapter", "caddyfile", "--config"]).await;
    // Of clients that it does not trust it tells their own address, which is one of ours here.
    it.streams_and_websockets_pass(false).await;
}
