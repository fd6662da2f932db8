//! rumqttc against the front, versions 3.1.1 and 5.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};

use crate::TRANSPORT;
use crate::client::SOON;
use crate::support::Server;
use crate::transport::Transport;

#[tokio::test]
async fn rumqttc_publishes_and_hears_itself_at_every_qos() {
    let server = Server::start().await;
    let (host, port) = (server.address.ip().to_string(), server.address.port());
    let mut options = match TRANSPORT {
        Transport::Tcp => MqttOptions::new("r", host, port),
        Transport::WebSocket => {
            let mut options = MqttOptions::new("r", format!("ws://{host}:{port}/mqtt"), port);
            options.set_transport(rumqttc::Transport::Ws);
            options
        }
    };
    options.set_keep_alive(Duration::from_secs(5));
    let (client, mut events) = AsyncClient::new(options, 10);
    client.subscribe("t/#", QoS::ExactlyOnce).await.unwrap();
    let sender = tokio::spawn(async move {
        for n in 0..300u16 {
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(n % 3)];
            client.publish(format!("t/{}", n % 3), qos, false, n.to_be_bytes()).await.unwrap();
        }
        client
    });
    let mut got = vec![Vec::new(); 3];
    while got.iter().map(Vec::len).sum::<usize>() < 300 {
        let event = tokio::time::timeout(SOON, events.poll()).await.expect("messages stopped").unwrap();
        if let Event::Incoming(Packet::Publish(publish)) = event {
            let qos = publish.qos as usize;
            assert_eq!(publish.topic, format!("t/{qos}"));
            got[qos].push(u16::from_be_bytes([publish.payload[0], publish.payload[1]]));
        }
    }
    for (qos, got) in got.iter().enumerate() {
        assert_eq!(*got, (0..100).map(|n| n * 3 + qos as u16).collect::<Vec<_>>(), "QoS {qos}");
    }
    let client = sender.await.unwrap();
    client.disconnect().await.unwrap();
}

#[tokio::test]
async fn rumqttc_speaks_version_5() {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
    use rumqttc::v5::{AsyncClient, Event, MqttOptions};
    let server = Server::start().await;
    let (host, port) = (server.address.ip().to_string(), server.address.port());
    let mut options = match TRANSPORT {
        Transport::Tcp => MqttOptions::new("r5", host, port),
        Transport::WebSocket => {
            let mut options = MqttOptions::new("r5", format!("ws://{host}:{port}/mqtt"), port);
            options.set_transport(rumqttc::Transport::Ws);
            options
        }
    };
    options.set_topic_alias_max(Some(5));
    let (client, mut events) = AsyncClient::new(options, 20);
    client.subscribe("t/+", QoS::AtLeastOnce).await.unwrap();
    let properties = PublishProperties {
        content_type: Some("text/plain".into()),
        user_properties: vec![("a".into(), "b".into())],
        ..PublishProperties::default()
    };
    for n in 0..10u8 {
        client
            .publish_with_properties("t/x", QoS::AtLeastOnce, false, vec![n], properties.clone())
            .await
            .unwrap();
    }
    let mut next = 0;
    while next < 10 {
        let event = tokio::time::timeout(SOON, events.poll()).await.expect("messages stopped").unwrap();
        if let Event::Incoming(Packet::Publish(publish)) = event {
            assert_eq!(publish.payload[..], [next]);
            let got = publish.properties.unwrap();
            assert_eq!(got.content_type.as_deref(), Some("text/plain"));
            assert_eq!(got.user_properties, properties.user_properties);
            next += 1;
        }
    }
}
