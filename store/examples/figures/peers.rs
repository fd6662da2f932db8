//! Servers that are asked over the network, each by what its protocol says that a message was taken with.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::inside::{PAYLOAD_BYTES, cost, of_threads};
use crate::tally::Figures;

/// Publishes in flight, all connections together.
pub(crate) const IN_FLIGHT: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    FanwireMqtt,
    FanwireHttp,
    Mosquitto,
    Nats,
    Redis,
}

impl Peer {
    pub(crate) const ALL: [Self; 5] =
        [Self::FanwireMqtt, Self::Mosquitto, Self::Nats, Self::Redis, Self::FanwireHttp];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FanwireMqtt => "Fanwire, MQTT QoS 1, `always`",
            Self::FanwireHttp => "Fanwire, HTTP, `always`",
            Self::Mosquitto => "mosquitto, QoS 1, `autosave_interval 1`",
            Self::Nats => "NATS JetStream R1, `sync_interval: always`",
            Self::Redis => "Redis Streams, `appendfsync always`",
        }
    }

    fn start(self, server: &Path, folder: &Path, address: SocketAddr) -> Outcome<Running> {
        let (port, folder_text) = (address.port().to_string(), folder.display().to_string());
        let mut command = match self {
            Self::FanwireMqtt | Self::FanwireHttp => {
                let mut command = Command::new(server);
                command.args(["--data", &folder_text]);
                let address = address.to_string();
                match self {
                    Self::FanwireHttp => command.args(["--http", &address, "--mqtt", "off"]),
                    _ => command.args(["--http", "off", "--mqtt", &address]),
                };
                command
            }
            Self::Mosquitto => {
                let config = folder.join("mosquitto.conf");
                let text = format!(
                    "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\npersistence true\n\
                     persistence_location {folder_text}/\nautosave_interval 1\nlog_type error\n\
                     max_queued_messages 0\nset_tcp_nodelay true\n"
                );
                std::fs::write(&config, text)?;
                let mut command = Command::new("mosquitto");
                command.arg("-c").arg(config);
                command
            }
            Self::Nats => {
                let program = std::env::var("NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned());
                let config = folder.join("nats.conf");
                let text = format!(
                    "listen: {address}\nlogfile: /dev/null\n\
                     jetstream {{ store_dir: \"{folder_text}\", sync_interval: always }}\n"
                );
                std::fs::write(&config, text)?;
                let mut command = Command::new(program);
                command.arg("-c").arg(config);
                command
            }
            Self::Redis => {
                let mut command = Command::new("redis-server");
                command.args(["--bind", "127.0.0.1", "--port", &port, "--dir", &folder_text, "--save", ""]);
                command.args(["--appendonly", "yes", "--appendfsync", "always", "--loglevel", "warning"]);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Running(command.spawn().map_err(|error| format!("it does not start: {error}"))?))
    }

    /// What a connection says first, with the answer read.
    async fn greet(self, socket: &mut Socket, name: &str) -> Outcome<()> {
        match self {
            Self::FanwireMqtt | Self::Mosquitto => {
                let mut connect = vec![0x10, (12 + name.len()) as u8];
                connect.extend_from_slice(b"\0\x04MQTT\x04\x02\0\0");
                connect.extend_from_slice(&(name.len() as u16).to_be_bytes());
                connect.extend_from_slice(name.as_bytes());
                socket.get_mut().write_all(&connect).await?;
                let mut answer = [0; 4];
                socket.read_exact(&mut answer).await?;
                if answer != [0x20, 2, 0, 0] {
                    return Err(format!("CONNACK {answer:?}").into());
                }
            }
            Self::Nats => {
                line(socket).await?;
                let hello = format!(
                    "CONNECT {{\"verbose\":false,\"headers\":false}}\r\nSUB _INBOX.{name} 1\r\nPING\r\n"
                );
                socket.get_mut().write_all(hello.as_bytes()).await?;
                if line(socket).await? != "PONG" {
                    return Err("no PONG".into());
                }
            }
            Self::FanwireHttp | Self::Redis => {}
        }
        Ok(())
    }

    /// Whether several publishes may be in flight on a connection.
    pub(crate) fn pipelines(self) -> bool {
        self != Self::FanwireHttp
    }

    /// The bytes of one publish, which its connection calls by a number.
    fn publish(self, name: &str, number: u16) -> Vec<u8> {
        let payload = vec![b'x'; PAYLOAD_BYTES];
        let mut bytes = Vec::new();
        match self {
            Self::FanwireMqtt | Self::Mosquitto => {
                let topic = format!("ledger/{name}");
                let length = 2 + topic.len() + 2 + payload.len();
                bytes.extend_from_slice(&[0x32, (length % 128) as u8 | 0x80, (length / 128) as u8]);
                bytes.extend_from_slice(&(topic.len() as u16).to_be_bytes());
                bytes.extend_from_slice(topic.as_bytes());
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            Self::FanwireHttp => {
                let length = payload.len();
                let head = format!(
                    "POST /v1/publish/ledger/{name} HTTP/1.1\r\nhost: localhost\r\n\
                     content-type: text/plain\r\ncontent-length: {length}\r\n\r\n"
                );
                bytes.extend_from_slice(head.as_bytes());
            }
            Self::Nats => {
                let length = payload.len();
                bytes.extend_from_slice(format!("PUB ledger.{name} _INBOX.{name} {length}\r\n").as_bytes());
            }
            Self::Redis => {
                let length = payload.len();
                let head = format!("*5\r\n$4\r\nXADD\r\n$6\r\nledger\r\n$1\r\n*\r\n$1\r\nd\r\n${length}\r\n");
                bytes.extend_from_slice(head.as_bytes());
            }
        }
        bytes.extend_from_slice(&payload);
        if matches!(self, Self::Nats | Self::Redis) {
            bytes.extend_from_slice(b"\r\n");
        }
        bytes
    }

    /// Reads the acknowledgement of the publish of this number, which is the oldest.
    async fn acknowledged(self, socket: &mut Socket, number: u16) -> Outcome<()> {
        match self {
            Self::FanwireMqtt | Self::Mosquitto => {
                let mut answer = [0; 4];
                socket.read_exact(&mut answer).await?;
                let [high, low] = number.to_be_bytes();
                if answer != [0x40, 2, high, low] {
                    return Err(format!("PUBACK {answer:?}").into());
                }
            }
            Self::FanwireHttp => {
                let status = line(socket).await?;
                if !status.starts_with("HTTP/1.1 200") {
                    return Err(status.into());
                }
                let mut length = 0;
                loop {
                    let field = line(socket).await?;
                    if field.is_empty() {
                        break;
                    }
                    if let Some((name, value)) = field.split_once(':')
                        && name.eq_ignore_ascii_case("content-length")
                    {
                        length = value.trim().parse()?;
                    }
                }
                socket.read_exact(&mut vec![0; length]).await?;
            }
            Self::Nats => {
                let head = loop {
                    let head = line(socket).await?;
                    if head == "PING" {
                        socket.get_mut().write_all(b"PONG\r\n").await?;
                        continue;
                    }
                    break head;
                };
                let length: usize = head.rsplit(' ').next().unwrap_or_default().parse()?;
                let mut answer = vec![0; length + 2];
                socket.read_exact(&mut answer).await?;
                let text = String::from_utf8_lossy(&answer);
                if !head.starts_with("MSG") || text.contains("\"error\"") {
                    return Err(format!("{head} {text}").into());
                }
            }
            Self::Redis => {
                let length = line(socket).await?;
                let Some(length) = length.strip_prefix('$') else { return Err(length.into()) };
                let mut id = vec![0; length.parse::<usize>()? + 2];
                socket.read_exact(&mut id).await?;
            }
        }
        Ok(())
    }

    /// What has to be there before the first publish: whoever keeps messages for somebody else does it for one.
    async fn prepare(self, address: SocketAddr) -> Outcome<()> {
        let mut socket = connect(address).await?;
        match self {
            Self::Mosquitto => {
                // A session that stays, subscribed at QoS 1.
                socket.get_mut().write_all(b"\x10\x0e\0\x04MQTT\x04\0\0\0\0\x02kk").await?;
                socket.read_exact(&mut [0; 4]).await?;
                socket.get_mut().write_all(b"\x82\x06\0\x01\0\x01#\x01").await?;
                socket.read_exact(&mut [0; 5]).await?;
                socket.get_mut().write_all(b"\xe0\0").await?;
            }
            Self::Nats => {
                self.greet(&mut socket, "make").await?;
                let stream = "{\"name\":\"LEDGER\",\"subjects\":[\"ledger.>\"],\"storage\":\"file\",\"num_replicas\":1}";
                let make =
                    format!("PUB $JS.API.STREAM.CREATE.LEDGER _INBOX.make {}\r\n{stream}\r\n", stream.len());
                socket.get_mut().write_all(make.as_bytes()).await?;
                self.acknowledged(&mut socket, 0).await?;
            }
            Self::FanwireMqtt | Self::FanwireHttp | Self::Redis => {}
        }
        Ok(())
    }
}

type Socket = BufReader<TcpStream>;

/// A server, which ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

async fn connect(address: SocketAddr) -> Outcome<Socket> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(BufReader::new(socket))
}

/// A line without its end.
async fn line(socket: &mut Socket) -> Outcome<String> {
    let mut line = Vec::new();
    while line.len() < 8_192 {
        match socket.read_u8().await? {
            b'\n' => break,
            b'\r' => {}
            byte => line.push(byte),
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Publishes over a connection for a while, so many in flight; how long each acknowledgement took. What comes together is
/// answered together, as a client that has its hands full does.
async fn ask(
    peer: Peer,
    mut socket: Socket,
    name: &str,
    in_flight: u16,
    until: Instant,
) -> Outcome<Vec<Duration>> {
    let publishes: Vec<Vec<u8>> = (1..=in_flight).map(|number| peer.publish(name, number)).collect();
    let (mut asked, mut times) = (VecDeque::new(), Vec::new());
    let mut next = (1..=in_flight).zip(&publishes).cycle();
    let mut count = usize::from(in_flight);
    loop {
        let mut bytes = Vec::new();
        if Instant::now() < until {
            for (number, publish) in next.by_ref().take(count) {
                bytes.extend_from_slice(publish);
                asked.push_back((number, Instant::now()));
            }
        }
        socket.get_mut().write_all(&bytes).await?;
        count = 0;
        while let Some((number, at)) = asked.pop_front() {
            let answer =
                tokio::time::timeout(Duration::from_secs(10), peer.acknowledged(&mut socket, number));
            answer.await.map_err(|_| "no acknowledgement in 10 s")??;
            times.push(at.elapsed());
            count += 1;
            if socket.buffer().is_empty() {
                break;
            }
        }
        if count == 0 {
            return Ok(times);
        }
    }
}

/// Starts a server, and has it acknowledge for a while.
pub(crate) async fn measure(
    peer: Peer,
    connections: usize,
    server: &Path,
    below: &Path,
    span: Duration,
    prints_threads: bool,
) -> Outcome<Figures> {
    let folder = tempfile::tempdir_in(below)?;
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut running = peer.start(server, folder.path(), address)?;
    for _ in 0..100 {
        if let Some(status) = running.0.try_wait()? {
            return Err(format!("it does not take its configuration ({status})").into());
        }
        if TcpStream::connect(address).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    peer.prepare(address).await?;
    let mut sockets = Vec::new();
    for number in 0..connections {
        let mut socket = connect(address).await?;
        peer.greet(&mut socket, &format!("c{number}")).await?;
        sockets.push(socket);
    }
    let process = running.0.id().to_string();
    let before = [of_threads(&process), of_threads("self")];
    let start = Instant::now();
    let mut writers = JoinSet::new();
    for (number, socket) in sockets.into_iter().enumerate() {
        writers.spawn(async move {
            let in_flight = (IN_FLIGHT / connections) as u16;
            let times = ask(peer, socket, &format!("c{number}"), in_flight, start + span).await;
            times.map_err(|error| error.to_string())
        });
    }
    let mut all = Vec::new();
    while let Some(times) = writers.join_next().await {
        all.extend(times??);
    }
    let took = start.elapsed();
    if prints_threads {
        for (whose, before) in [&*process, "self"].into_iter().zip(&before) {
            eprintln!("{}, {}", peer.name(), cost(before, &of_threads(whose), all.len()));
        }
    }
    Ok(Figures::of(all, took))
}
