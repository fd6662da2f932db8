//! What the codecs cost per packet or message, 64-byte payloads.

use broker_core::Qos;
use bytes::{Bytes, BytesMut};
use criterion::{Criterion, criterion_group, criterion_main};
use front_mqtt::codec::{self, Dialect, Framing, PublishHeader, Sharing, Version};
use std::hint::black_box;
use websocket::{Assembler, Limits};

static PAYLOAD: [u8; 64] = [b'.'; 64];

fn mqtt(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mqtt");
    for (name, version) in [("3.1.1", Version::V311), ("5.0", Version::V5)] {
        let dialect = Dialect { version, framing: Framing::Raw };
        let header =
            PublishHeader { qos: Qos::AtLeastOnce, packet_id: 7, ..PublishHeader::plain("chat/room1") };
        let payload = Bytes::from_static(&PAYLOAD);
        let encode = || codec::publish(dialect, &header, &[], &payload, Sharing::OneBuffer);
        let packet = encode().expect("it fits a packet").head;
        group
            .bench_function(format!("encode PUBLISH {name}"), |bencher| bencher.iter(|| black_box(encode())));
        group.bench_function(format!("decode PUBLISH {name}"), |bencher| {
            bencher.iter(|| {
                let frame =
                    codec::split(&packet, Some(version), 1 << 20).expect("a good header").expect("all of it");
                black_box(codec::parse(&frame, &packet[frame.header..], version).expect("a good packet"));
            });
        });
    }
    group.finish();
}

fn bayeux(criterion: &mut Criterion) {
    let one = r#"{"channel":"/chat/room1","clientId":"f5jkxnunxncoqy6jlusz57gfor3s5kxz","id":"17","data":{"user":"somebody","text":"sixty-four bytes or so of text","n":12345678901234567890}}"#;
    let batch = format!("[{}]", [one; 10].join(","));
    criterion.bench_function("bayeux/parse a batch of ten", |bencher| {
        bencher.iter(|| front_bayeux::fuzzing::messages(black_box(batch.as_bytes())));
    });
    criterion.bench_function("json/check ten messages", |bencher| {
        bencher.iter(|| black_box(envelope::is_valid_json(black_box(batch.as_bytes()), 512)));
    });
}

fn frames(criterion: &mut Criterion) {
    // A masked binary frame, as clients send it.
    let mut frame = vec![0x82, 0x80 | PAYLOAD.len() as u8, 1, 2, 3, 4];
    frame.extend(PAYLOAD.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, mask)| byte ^ mask));
    criterion.bench_function("websocket/take a frame apart", |bencher| {
        let mut assembler = Assembler::new(Limits::default(), None);
        bencher.iter(|| {
            let mut input = BytesMut::from(&frame[..]);
            black_box(assembler.feed(&mut input).expect("a good frame"));
        });
    });
}

criterion_group!(benches, mqtt, bayeux, frames);
criterion_main!(benches);
