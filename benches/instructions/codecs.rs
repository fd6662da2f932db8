//! The codecs that stand alone, with payloads of 64 bytes.

use std::hint::black_box;

use broker_core::{Channel, Publish, Qos};
use bytes::{Bytes, BytesMut};
use fanwire_benches::{Bed, Recording};
use front_mqtt::codec::{self, Dialect, EncodedPublish, Framing, PublishHeader, Sharing, Version};
use websocket::{Assembler, Limits};

use crate::counted;

const TIMES: u64 = 10_000;
static PAYLOAD: [u8; 64] = [b'.'; 64];

fn mqtt_packet() -> EncodedPublish {
    let dialect = Dialect { version: Version::V5, framing: Framing::Raw };
    let header = PublishHeader { qos: Qos::AtLeastOnce, packet_id: 7, ..PublishHeader::plain("chat/room1") };
    let payload = Bytes::from_static(&PAYLOAD);
    codec::publish(black_box(dialect), &header, &[], &payload, Sharing::OneBuffer).expect("it fits a packet")
}

pub(crate) fn mqtt_encode() -> u64 {
    counted(TIMES, |_| {
        black_box(mqtt_packet());
    })
}

pub(crate) fn mqtt_decode() -> u64 {
    let packet = mqtt_packet().head;
    counted(TIMES, |_| {
        let packet = black_box(&packet);
        let frame =
            codec::split(packet, Some(Version::V5), 1 << 20).expect("a good header").expect("all of it");
        black_box(codec::parse(&frame, &packet[frame.header..], Version::V5).expect("a good packet"));
    })
}

/// A masked binary frame, as clients send it.
pub(crate) fn websocket_frame() -> u64 {
    let mut frame = vec![0x82, 0x80 | PAYLOAD.len() as u8, 1, 2, 3, 4];
    frame.extend(PAYLOAD.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
    let mut assembler = Assembler::new(Limits::default(), None);
    counted(TIMES, |_| {
        let mut input = BytesMut::from(black_box(&frame[..]));
        black_box(assembler.feed(&mut input).expect("a good frame"));
    })
}

/// A recorded message whose payload is text.
pub(crate) fn envelope() -> u64 {
    let bed = Bed::alone(Recording::On);
    let channel = Channel::parse("chat/room1").expect("a valid channel");
    let publish = Publish::new(channel.clone(), Bytes::from_static(&PAYLOAD)).retain(true);
    bed.broker.publish(publish).expect("there is room");
    let message = bed.broker.retained(&channel).expect("it was just retained");
    counted(TIMES, |_| {
        black_box(::envelope::envelope(black_box(&message)));
    })
}
