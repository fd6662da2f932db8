use rumqttc::QoS;

use crate::support::TestServer;
use crate::support::mqtt::Client;

#[tokio::test]
async fn a_second_client_of_one_id_ends_the_first() {
    let server = TestServer::start().await;
    let mut first = Client::connect(server.mqtt, "same").await;
    first.subscribe("t", QoS::AtMostOnce).await;
    let mut second = Client::connect(server.mqtt, "same").await;
    first.ended().await;
    second.subscribe("t", QoS::AtMostOnce).await;
    server.publish("t", "x");
    assert_eq!(second.payload().await, "x");
    assert_eq!(server.broker.stats().subscriptions, 1);
}

#[tokio::test]
async fn a_clean_session_leaves_nothing() {
    let server = TestServer::start().await;
    let mut client = Client::connect(server.mqtt, "c").await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    client.kill();
    server.wait_for_subscriptions(0).await;
}

#[tokio::test]
async fn a_kept_session_gets_what_came_while_it_was_away() {
    let server = TestServer::start().await;
    let keep = |options: &mut rumqttc::MqttOptions| {
        options.set_clean_session(false);
    };
    let mut client = Client::connect_with(server.mqtt, "c", keep).await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    client.client.disconnect().await.unwrap();
    client.ended().await;
    for n in 0..10 {
        server.publish("t", &n.to_string());
    }
    let mut again = Client::connect_with(server.mqtt, "c", keep).await;
    for n in 0..10 {
        assert_eq!(again.payload().await, n.to_string());
    }
}
