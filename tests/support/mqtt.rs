//! MQTT clients: rumqttc where it will do, bare packets where no client would send them.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, Outgoing, Publish, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::within;

/// A connected client (3.1.1) whose event loop runs in a task.
pub struct Client {
    pub client: AsyncClient,
    events: mpsc::UnboundedReceiver<Incoming>,
    task: JoinHandle<()>,
}

impl Client {
    pub async fn connect(address: SocketAddr, id: &str) -> Self {
        Self::connect_with(address, id, |_| {}).await
    }

    pub async fn connect_with(address: SocketAddr, id: &str, change: impl FnOnce(&mut MqttOptions)) -> Self {
        let mut options = MqttOptions::new(id, address.ip().to_string(), address.port());
        options.set_keep_alive(Duration::from_secs(30));
        options.set_max_packet_size(8 << 20, 8 << 20);
        change(&mut options);
        let (client, mut events_in) = AsyncClient::new(options, 4096);
        let (sender, events) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move { forward(&mut events_in, &sender).await });
        let mut connected = Client { client, events, task };
        connected.wait_for(|packet| matches!(packet, Incoming::ConnAck(_))).await;
        connected
    }

    pub async fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.client.subscribe(filter, qos).await.expect("queued");
        self.wait_for(|packet| matches!(packet, Incoming::SubAck(_))).await;
    }

    pub async fn publish(&self, topic: &str, qos: QoS, payload: &str) {
        self.client.publish(topic, qos, false, payload.as_bytes().to_vec()).await.expect("queued");
    }

    pub async fn retain(&self, topic: &str, payload: &str) {
        self.client
            .publish(topic, QoS::AtLeastOnce, true, payload.as_bytes().to_vec())
            .await
            .expect("queued");
    }

    /// The next message.
    pub async fn message(&mut self) -> Publish {
        match self.wait_for(|packet| matches!(packet, Incoming::Publish(_))).await {
            Incoming::Publish(publish) => publish,
            _ => unreachable!("only a publish was waited for"),
        }
    }

    /// The next message's payload.
    pub async fn payload(&mut self) -> String {
        String::from_utf8(self.message().await.payload.to_vec()).expect("UTF-8")
    }

    /// The next message's payload, if one comes in `patience`.
    pub async fn payload_if_any(&mut self, patience: Duration) -> Option<String> {
        let message = async {
            loop {
                if let Incoming::Publish(publish) = self.events.recv().await? {
                    return Some(publish.payload.to_vec());
                }
            }
        };
        let payload = tokio::time::timeout(patience, message).await.ok()??;
        Some(String::from_utf8(payload).expect("UTF-8"))
    }

    /// As [`Client::payload`], for what may take longer than anything else here.
    pub async fn payload_within(&mut self, patience: std::time::Duration) -> String {
        let message = async {
            loop {
                if let Incoming::Publish(publish) = self.events.recv().await.expect("the connection lives") {
                    return publish.payload.to_vec();
                }
            }
        };
        let payload = tokio::time::timeout(patience, message).await.expect("in time");
        String::from_utf8(payload).expect("UTF-8")
    }

    /// Passes over packets until one that is wanted.
    pub async fn wait_for(&mut self, wanted: impl Fn(&Incoming) -> bool) -> Incoming {
        within(async {
            loop {
                let packet = self.events.recv().await.expect("the connection lives");
                if wanted(&packet) {
                    return packet;
                }
            }
        })
        .await
    }

    /// Whether the connection is over, after everything before its end was passed over.
    pub async fn ended(&mut self) {
        within(async { while self.events.recv().await.is_some() {} }).await;
    }

    /// Goes away as a killed process does: without a word.
    pub fn kill(self) {
        self.task.abort();
    }
}

async fn forward(client: &mut EventLoop, packets: &mpsc::UnboundedSender<Incoming>) {
    // It would reconnect after an error; a test wants to know.
    while let Ok(event) = client.poll().await {
        match event {
            Event::Incoming(packet) => {
                if packets.send(packet).is_err() {
                    return;
                }
            }
            Event::Outgoing(Outgoing::Disconnect) => return,
            Event::Outgoing(_) => {}
        }
    }
    // What it had read when the connection ended is not lost.
    for event in client.state.events.drain(..) {
        if let Event::Incoming(packet) = event {
            let _ = packets.send(packet);
        }
    }
}

/// A socket with nothing but packets on it.
pub struct Bare(pub TcpStream);

impl Bare {
    pub async fn connect(address: SocketAddr) -> Self {
        Bare(TcpStream::connect(address).await.expect("the server listens"))
    }

    /// CONNECT of version 3.1.1 with a clean session and its CONNACK.
    pub async fn shake_hands(address: SocketAddr, id: &str) -> Self {
        let mut bare = Self::connect(address).await;
        bare.send(&connect_packet(id)).await;
        assert_eq!(bare.receive(4).await, [0x20, 2, 0, 0]);
        bare
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        within(self.0.write_all(bytes)).await.expect("written");
    }

    pub async fn receive(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        within(self.0.read_exact(&mut bytes)).await.expect("enough bytes");
        bytes
    }

    /// What comes until the server closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = within(self.0.read_to_end(&mut bytes)).await;
        bytes
    }
}

/// CONNECT, version 3.1.1, clean session, keep alive 60 s.
pub fn connect_packet(id: &str) -> Vec<u8> {
    let mut packet = vec![0x10, u8::try_from(12 + id.len()).expect("a short id")];
    packet.extend_from_slice(b"\x00\x04MQTT\x04\x02\x00\x3c\x00");
    packet.push(u8::try_from(id.len()).expect("a short id"));
    packet.extend_from_slice(id.as_bytes());
    packet
}
