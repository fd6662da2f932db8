//! The codec against an independent one, rumqttc's, on valid packets: what one writes the other reads.

use bytes::{Bytes, BytesMut};
use front_mqtt::codec::{self, Dialect, Framing, Packet, PublishHeader, Sharing, Version};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes::v5;

fn read(bytes: &[u8], version: Option<Version>) -> Packet<'_> {
    let frame = codec::split(bytes, version, 1 << 28).expect("a good header").expect("a whole header");
    assert_eq!(frame.total(), bytes.len());
    codec::parse(&frame, &bytes[frame.header..], version.unwrap_or(Version::V5)).expect("a good packet")
}

/// Text that may be any string MQTT carries.
fn text() -> impl Strategy<Value = String> {
    "[^\\x00]{0,40}"
}

fn topic() -> impl Strategy<Value = String> {
    "[^\\x00+#]{1,60}"
}

fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..most).prop_map(Bytes::from)
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((text(), text()), 0..4)
}

fn qos5(qos: u8) -> rumqttc::v5::mqttbytes::QoS {
    [
        rumqttc::v5::mqttbytes::QoS::AtMostOnce,
        rumqttc::v5::mqttbytes::QoS::AtLeastOnce,
        rumqttc::v5::mqttbytes::QoS::ExactlyOnce,
    ][usize::from(qos)]
}

fn qos4(qos: u8) -> rumqttc::QoS {
    [rumqttc::QoS::AtMostOnce, rumqttc::QoS::AtLeastOnce, rumqttc::QoS::ExactlyOnce][usize::from(qos)]
}

fn qos(qos: u8) -> broker_core::Qos {
    [broker_core::Qos::AtMostOnce, broker_core::Qos::AtLeastOnce, broker_core::Qos::ExactlyOnce]
        [usize::from(qos)]
}

prop_compose! {
    fn publish_properties()(
        payload_format_indicator in option::of(0u8..2),
        message_expiry_interval in option::of(any::<u32>()),
        topic_alias in option::of(1u16..),
        response_topic in option::of(topic()),
        correlation_data in option::of(bytes(40)),
        user_properties in pairs(),
        content_type in option::of(text()),
    ) -> v5::PublishProperties {
        v5::PublishProperties {
            payload_format_indicator,
            message_expiry_interval,
            topic_alias,
            response_topic,
            correlation_data,
            user_properties,
            subscription_identifiers: Vec::new(),
            content_type,
        }
    }
}

prop_compose! {
    fn connect_properties()(
        session_expiry_interval in option::of(any::<u32>()),
        receive_maximum in option::of(1u16..),
        max_packet_size in option::of(1u32..),
        topic_alias_max in option::of(any::<u16>()),
        request_response_info in option::of(0u8..2),
        request_problem_info in option::of(0u8..2),
        user_properties in pairs(),
        authentication in option::of((text(), option::of(bytes(40)))),
    ) -> v5::ConnectProperties {
        let (authentication_method, authentication_data) = match authentication {
            Some((method, data)) => (Some(method), data),
            None => (None, None),
        };
        v5::ConnectProperties {
            session_expiry_interval,
            receive_maximum,
            max_packet_size,
            topic_alias_max,
            request_response_info,
            request_problem_info,
            user_properties,
            authentication_method,
            authentication_data,
        }
    }
}

fn user(properties: &codec::Properties<'_>) -> Vec<(String, String)> {
    properties.user().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn their_publish_5_reads_the_same(
        (topic, level, dup, retain, id) in (topic(), 0u8..3, any::<bool>(), any::<bool>(), 1u16..),
        payload in bytes(3000),
        properties in option::of(publish_properties()),
    ) {
        let theirs = v5::Publish {
            dup: dup && level > 0,
            qos: qos5(level),
            retain,
            topic: Bytes::from(topic.clone()),
            pkid: if level > 0 { id } else { 0 },
            payload: payload.clone(),
            properties: properties.clone(),
        };
        let mut out = BytesMut::new();
        theirs.write(&mut out).unwrap();
        let Packet::Publish(ours) = read(&out, Some(Version::V5)) else { panic!("not a PUBLISH") };
        prop_assert_eq!((ours.topic, ours.payload, ours.packet_id), (&*topic, &payload[..], theirs.pkid));
        prop_assert_eq!((ours.dup, ours.retain, ours.qos), (theirs.dup, retain, qos(level)));
        let properties = properties.unwrap_or_default();
        let got = &ours.properties;
        prop_assert_eq!(got.payload_is_utf8, properties.payload_format_indicator.map(|utf8| utf8 == 1));
        prop_assert_eq!(got.message_expiry_secs, properties.message_expiry_interval);
        prop_assert_eq!(got.topic_alias, properties.topic_alias);
        prop_assert_eq!(got.response_topic, properties.response_topic.as_deref());
        prop_assert_eq!(got.correlation_data, properties.correlation_data.as_deref());
        prop_assert_eq!(got.content_type, properties.content_type.as_deref());
        prop_assert_eq!(user(&got.raw), properties.user_properties);
    }

    #[test]
    fn their_connect_5_reads_the_same(
        (keep_alive, client_id, clean_start) in (any::<u16>(), text(), any::<bool>()),
        properties in option::of(connect_properties()),
        login in option::of((text(), "[^\\x00]{1,40}")),
    ) {
        let theirs = v5::Connect { keep_alive, client_id: client_id.clone(), clean_start, properties: properties.clone() };
        let login = login.map(|(username, password)| v5::Login { username: format!("u{username}"), password });
        let mut out = BytesMut::new();
        theirs.write(&None, &login, &mut out).unwrap();
        let Packet::Connect(ours) = read(&out, None) else { panic!("not a CONNECT") };
        prop_assert_eq!((ours.keep_alive_secs, ours.client_id, ours.clean_start), (keep_alive, &*client_id, clean_start));
        prop_assert_eq!(ours.user, login.as_ref().map(|login| &*login.username));
        prop_assert_eq!(ours.password, login.as_ref().map(|login| login.password.as_bytes()));
        let properties = properties.unwrap_or_else(v5::ConnectProperties::new);
        prop_assert_eq!(ours.session_expiry_secs, properties.session_expiry_interval.unwrap_or(0));
        prop_assert_eq!(ours.receive_maximum, properties.receive_maximum.unwrap_or(u16::MAX));
        prop_assert_eq!(ours.maximum_packet_size, properties.max_packet_size);
        prop_assert_eq!(ours.topic_alias_maximum, properties.topic_alias_max.unwrap_or(0));
        prop_assert_eq!(ours.request_response_info, properties.request_response_info == Some(1));
        prop_assert_eq!(ours.request_problem_info, properties.request_problem_info.map(|wanted| wanted == 1));
        prop_assert_eq!(ours.auth_method, properties.authentication_method.as_deref());
        prop_assert_eq!(ours.auth_data, properties.authentication_data.as_deref());
        prop_assert_eq!(user(&ours.properties), properties.user_properties);
    }

    #[test]
    fn their_subscribe_5_reads_the_same(
        id in 1u16..,
        filters in vec((text(), 0u8..3, any::<bool>(), any::<bool>(), 0u8..3), 1..6),
        subscription_id in option::of(1usize..268_435_456),
    ) {
        let rules = [v5::RetainForwardRule::OnEverySubscribe, v5::RetainForwardRule::OnNewSubscribe, v5::RetainForwardRule::Never];
        let theirs = v5::Subscribe {
            pkid: id,
            filters: filters.iter().map(|(path, level, nolocal, preserve_retain, rule)| v5::Filter {
                path: path.clone(),
                qos: qos5(*level),
                nolocal: *nolocal,
                preserve_retain: *preserve_retain,
                retain_forward_rule: rules[usize::from(*rule)].clone(),
            }).collect(),
            properties: subscription_id.map(|id| v5::SubscribeProperties { id: Some(id), user_properties: Vec::new() }),
        };
        let mut out = BytesMut::new();
        theirs.write(&mut out).unwrap();
        let Packet::Subscribe(ours) = read(&out, Some(Version::V5)) else { panic!("not a SUBSCRIBE") };
        prop_assert_eq!((ours.packet_id, ours.subscription_id.map(|id| id as usize)), (id, subscription_id));
        let got: Vec<_> = ours.filters().map(|(path, options)| {
            (path.to_owned(), options.qos as u8, options.no_local, options.retain_as_published, options.retain_handling as u8)
        }).collect();
        prop_assert_eq!(got, filters);
    }

    #[test]
    fn their_version_4_packets_read_the_same(
        (topic, level, retain, id) in (topic(), 0u8..3, any::<bool>(), 1u16..),
        payload in bytes(3000),
        filters in vec((text(), 0u8..3), 1..6),
    ) {
        let mut theirs = v4::Publish::new(topic.clone(), qos4(level), payload.clone());
        theirs.retain = retain;
        theirs.pkid = if level > 0 { id } else { 0 };
        let mut out = BytesMut::new();
        theirs.write(&mut out).unwrap();
        let Packet::Publish(ours) = read(&out, Some(Version::V311)) else { panic!("not a PUBLISH") };
        prop_assert_eq!((ours.topic, ours.payload, ours.packet_id), (&*topic, &payload[..], theirs.pkid));
        prop_assert_eq!((ours.retain, ours.qos), (retain, qos(level)));

        let asked = filters.iter().map(|(path, level)| v4::SubscribeFilter::new(path.clone(), qos4(*level)));
        let mut theirs = v4::Subscribe::new_many(asked);
        theirs.pkid = id;
        let mut out = BytesMut::new();
        theirs.write(&mut out).unwrap();
        let Packet::Subscribe(ours) = read(&out, Some(Version::V311)) else { panic!("not a SUBSCRIBE") };
        let got: Vec<_> = ours.filters().map(|(path, options)| (path.to_owned(), options.qos as u8)).collect();
        prop_assert_eq!(got, filters);
    }

    #[test]
    fn our_publish_reads_the_same_there(
        (topic, level, dup, retain, id) in (topic(), 0u8..3, any::<bool>(), any::<bool>(), 1u16..),
        payload in bytes(3000),
        (alias, ids) in (any::<u16>(), vec(1u32..268_435_456, 0..3)),
    ) {
        for version in [Version::V311, Version::V5] {
            let v5 = version == Version::V5;
            let header = PublishHeader {
                qos: qos(level),
                dup: dup && level > 0,
                retain,
                packet_id: id,
                topic: &topic,
                topic_alias: if v5 { alias } else { 0 },
                subscription_ids: if v5 { &ids } else { &[] },
            };
            let dialect = Dialect { version, framing: Framing::Raw };
            let packet = codec::publish(dialect, &header, &[], &payload, Sharing::OneBuffer).unwrap();
            let mut stream = BytesMut::from(&packet.head[..]);
            if v5 {
                let Ok(v5::Packet::Publish(theirs)) = v5::Packet::read(&mut stream, None) else { panic!("refused") };
                prop_assert_eq!((&theirs.topic[..], &theirs.payload), (topic.as_bytes(), &payload));
                prop_assert_eq!((theirs.dup, theirs.retain, theirs.qos as u8), (header.dup, retain, level));
                prop_assert_eq!(theirs.pkid, if level > 0 { id } else { 0 });
                let properties = theirs.properties.unwrap_or_default();
                prop_assert_eq!(properties.topic_alias, (alias > 0).then_some(alias));
                let got: Vec<u32> = properties.subscription_identifiers.iter().map(|id| *id as u32).collect();
                prop_assert_eq!(&got, &ids);
            } else {
                let Ok(v4::Packet::Publish(theirs)) = v4::Packet::read(&mut stream, 1 << 20) else { panic!("refused") };
                prop_assert_eq!((&theirs.topic, &theirs.payload), (&topic, &payload));
                prop_assert_eq!((theirs.dup, theirs.retain, theirs.qos as u8), (header.dup, retain, level));
            }
            prop_assert!(stream.is_empty());
        }
    }
}
