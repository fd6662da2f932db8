//! Codecs that a front keeps to itself, through the front: without a socket, in requests and streams that are mostly
//! codec.

use std::hint::black_box;
use std::sync::Arc;

use broker_core::{AllowAll, Channel, Publish};
use bytes::Bytes;
use fanwire_benches::{Bed, Recording};
use http::Request;
use http_body_util::{BodyExt, Full};

use crate::counted;

/// A POST of 50 publishes that nobody hears: parsed, dispatched, published and answered. Counted by message.
pub(crate) fn bayeux_batch() -> u64 {
    const BATCH: u64 = 50;
    let bed = Bed::alone(Recording::On);
    let _guard = bed.runtime.enter();
    let config = front_bayeux::Config::default();
    let front = front_bayeux::Front::new(bed.broker.clone(), Arc::new(AllowAll), config);
    let post = |cookie: &str, body: &str| {
        let request = Request::post("/cometd")
            .header("content-type", "application/json")
            .header("cookie", cookie)
            .body(Full::new(Bytes::from(body.to_owned())))
            .expect("a good request");
        bed.runtime.block_on(async {
            let (head, body) = front.handle(request).await.into_parts();
            let body = body.collect().await.expect("it is there").to_bytes();
            (head.headers, String::from_utf8_lossy(&body).into_owned())
        })
    };
    let hello =
        r#"[{"channel":"/meta/handshake","version":"1.0","supportedConnectionTypes":["long-polling"]}]"#;
    let (head, hello) = post("", hello);
    let id = hello.split(r#""clientId":""#).nth(1).and_then(|rest| rest.split('"').next());
    let id = id.expect("the handshake succeeds");
    let cookie = head.get("set-cookie").and_then(|line| line.to_str().ok()?.split(';').next());
    let cookie = cookie.expect("a session comes with a cookie");
    let message = format!(
        r#"{{"channel":"/chat/room1","clientId":"{id}","id":"17","data":{{"user":"somebody","text":"sixty-four bytes or so of text","n":12345678901234567890}}}}"#
    );
    let batch = format!("[{}]", vec![message; BATCH as usize].join(","));
    let (_, answer) = post(cookie, &batch);
    let taken = answer.matches(r#""successful":true"#).count();
    assert_eq!(taken as u64, BATCH, "all are taken: {answer}");
    BATCH
        * counted(100, |_| {
            black_box(post(cookie, &batch));
        })
}

/// Two kilobytes in lines of 40, to one stream in a foreign server's body: published, delivered, encoded, read.
pub(crate) fn sse_event() -> u64 {
    let bed = Bed::alone(Recording::On);
    let _guard = bed.runtime.enter();
    let config = front_sse::Config::default();
    let front = front_sse::Front::new(bed.broker.clone(), Arc::new(AllowAll), config);
    let request = Request::get("/sse/chat/room1").body(Full::new(Bytes::new())).expect("a good request");
    let mut body = bed.runtime.block_on(front.handle(request)).into_body();
    let channel = Channel::parse("chat/room1").expect("a valid channel");
    let payload = Bytes::from([[b'.'; 39].as_slice(), b"\n"].concat().repeat(51));
    let mut pass = || {
        bed.broker.publish(Publish::new(channel.clone(), payload.clone())).expect("there is room");
        bed.runtime.block_on(async {
            let mut read = 0;
            while read < payload.len() {
                let frame = body.frame().await.expect("it is open").expect("it does not break");
                read += frame.data_ref().map_or(0, Bytes::len);
            }
        });
    };
    for _ in 0..100 {
        pass();
    }
    counted(1_000, |_| pass())
}
