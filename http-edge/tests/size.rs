//! What a connection costs.

use bytes::Bytes;
use http::Request;
use http_edge::{Body, ServeConfig, serve_unnamed};
use hyper::body::Incoming;

#[tokio::test]
async fn the_future_of_a_connection_is_small() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let service = |_: Request<Incoming>| async { http::Response::new(Body::full(Bytes::from_static(b"hi"))) };
    let connection = serve_unnamed(stream, service, ServeConfig::default(), stopped);
    let bytes = size_of_val(&connection);
    assert!(bytes <= 1392, "{bytes}");
}
