//! MQTT packets by hand, for what no client library sends or shows.

use crate::support::TestServer;
use crate::support::mqtt::Bare;

/// PUBLISH of version 5 without properties.
pub(crate) fn publish(level: u8, topic: &str, qos: u8, id: u16, payload: &str) -> Vec<u8> {
    let mut body = vec![0, u8::try_from(topic.len()).expect("short")];
    body.extend_from_slice(topic.as_bytes());
    if qos > 0 {
        body.extend_from_slice(&id.to_be_bytes());
    }
    if level == 5 {
        body.push(0);
    }
    body.extend_from_slice(payload.as_bytes());
    [&[0x30 | qos << 1, u8::try_from(body.len()).expect("short")], &body[..]].concat()
}

pub(crate) fn subscribe(level: u8, filter: &str, id: u16) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if level == 5 {
        body.push(0);
    }
    body.extend_from_slice(&[0, u8::try_from(filter.len()).expect("short")]);
    body.extend_from_slice(filter.as_bytes());
    body.push(1);
    [&[0x82, u8::try_from(body.len()).expect("short")], &body[..]].concat()
}

pub(crate) async fn connected(server: &TestServer, level: u8) -> Bare {
    let mut client = Bare::connect(server.mqtt).await;
    let props: &[u8] = if level == 5 { &[0] } else { &[] };
    let body = [b"\x00\x04MQTT", &[level, 2, 0, 60][..], props, b"\x00\x01c"].concat();
    client.send(&[&[0x10, u8::try_from(body.len()).expect("short")], &body[..]].concat()).await;
    let head = client.receive(2).await;
    assert_eq!(client.receive(usize::from(head[1])).await[1], 0);
    client
}

/// The next packet: its first byte and its body.
pub(crate) async fn packet(client: &mut Bare) -> (u8, Vec<u8>) {
    let head = client.receive(2).await;
    (head[0], client.receive(usize::from(head[1])).await)
}
