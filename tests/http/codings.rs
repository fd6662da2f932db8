//! Bodies that come compressed.

use std::io::Write as _;

use fanwire::Filter;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::json;

use crate::support::http::request;
use crate::support::{TestServer, within};

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_compressed_body_is_published_as_what_it_holds() {
    let server = TestServer::start().await;
    let mut all = server.broker.subscribe(Filter::parse("a").unwrap()).unwrap();
    let item = br#"{"channel":"a","data":[1,2,3]}"#;
    for (path, kind, coding, body, expected) in [
        ("/v1/publish/a", "text/plain", "gzip", gzip(b"hello"), "hello"),
        ("/v1/publish/a", "text/plain", "deflate", zlib(b"hello"), "hello"),
        ("/v1/publish/a", "text/plain", "identity", b"hello".to_vec(), "hello"),
        ("/v1/publish", "application/json", "x-gzip", gzip(item), "[1,2,3]"),
        ("/v1/publish", "application/x-ndjson", "gzip", gzip(item), "[1,2,3]"),
    ] {
        let headers = [("content-type", kind), ("content-encoding", coding)];
        let answer = request(server.http, "POST", path, &headers, body).await;
        assert_eq!(answer.status, 200, "{path} {coding} {answer:?}");
        assert_eq!(within(all.message()).await.unwrap().payload(), expected, "{path} {kind} {coding}");
    }
    let shake = json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"]}]);
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let answer = request(server.http, "POST", "/cometd", &headers, gzip(shake.to_string().as_bytes())).await;
    assert_eq!(answer.json()[0]["successful"], true, "{answer:?}");
}

#[tokio::test]
async fn limits_are_those_of_what_comes_out_and_other_codings_are_named_those_that_are_taken() {
    let server = TestServer::with(|config| config.api.max_request_bytes = 100_000).await;
    let zeros = |length| gzip(&vec![b'0'; length]);
    for (path, coding, body, status, code) in [
        ("/v1/publish", "gzip", zeros(100_001), 413, "body_too_large"),
        ("/v1/publish/a", "gzip", zeros(5 << 20), 413, "body_too_large"),
        ("/v1/publish/a", "gzip", b"hello".to_vec(), 400, "invalid_coding"),
        ("/v1/publish/a", "gzip", gzip(b"hello")[..15].to_vec(), 400, "invalid_coding"),
        ("/v1/publish/a", "br", b"hello".to_vec(), 415, "unsupported_media_type"),
        ("/v1/publish/a", "gzip, gzip", gzip(&gzip(b"x")), 415, "unsupported_media_type"),
        ("/cometd", "zstd", b"hello".to_vec(), 415, "unsupported_media_type"),
        ("/sse", "br", b"{}".to_vec(), 415, "unsupported_media_type"),
        ("/sse", "gzip", b"{}".to_vec(), 400, "invalid_coding"),
    ] {
        let headers = [("content-type", "application/json"), ("content-encoding", coding)];
        let answer = request(server.http, "POST", path, &headers, body).await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{path} {coding}");
        let accepted = (status == 415).then_some("gzip, deflate, identity");
        assert_eq!(answer.header("accept-encoding"), accepted, "{path} {coding}");
    }
    assert!(server.broker.subscribe(Filter::parse("a").unwrap()).is_ok(), "it lives");
}
