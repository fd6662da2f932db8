use crate::support::TestServer;
use crate::support::http::{get, http2, request};
use crate::support::sse::EventStream;

#[tokio::test]
async fn each_path_has_its_front() {
    let server = TestServer::start().await;
    let cases = [
        ("/", 200, "text/html; charset=utf-8"),
        ("/page/page.js", 200, "text/javascript; charset=utf-8"),
        ("/page/page.css", 200, "text/css; charset=utf-8"),
        ("/sse", 400, "application/problem+json"),
        ("/v1", 404, "application/problem+json"),
        ("/nothing", 404, "application/problem+json"),
        ("/healthz", 200, "text/plain;charset=utf-8"),
    ];
    for (path, status, kind) in cases {
        let answer = get(server.http, path).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, Some(kind)), "{path}");
    }
    for path in ["/cometd", "/mqtt"] {
        let answer = get(server.http, path).await;
        assert!((400..500).contains(&answer.status) && answer.status != 404, "{path}: {answer:?}");
    }
}

/// Whoever looks for a request in two logs finds it by this, whatever it was and however it went.
#[tokio::test]
async fn every_answer_names_its_request() {
    let server = TestServer::start().await;
    for method in ["GET", "HEAD", "POST", "OPTIONS", "DELETE"] {
        for path in ["/", "/nothing", "/v1/publish/a", "/sse", "/cometd", "/mqtt", "/healthz"] {
            let answer = request(server.http, method, path, &[("x-request-id", "mine-1")], "").await;
            assert_eq!(answer.header("x-request-id"), Some("mine-1"), "{method} {path} {answer:?}");
            let other = request(server.http, method, path, &[("x-request-id", "not printable")], "").await;
            assert_eq!(other.header("x-request-id").map(str::len), Some(16), "{method} {path} {other:?}");
        }
    }
    let stream = EventStream::open_with(server.http, "/sse/a", "x-request-id: mine-2\r\n").await;
    assert!(stream.head.contains(&"x-request-id: mine-2".to_owned()), "{:?}", stream.head);
}

#[tokio::test]
async fn where_mqtt_opens_its_websocket_other_methods_are_told_so() {
    let server = TestServer::start().await;
    let asks = [("upgrade", "websocket"), ("connection", "upgrade")];
    for (method, lines, status) in [
        ("OPTIONS", &[][..], 204),
        ("HEAD", &[], 426),
        ("HEAD", &asks, 426),
        ("GET", &[], 426),
        ("POST", &[], 405),
    ] {
        let answer = request(server.http, method, "/mqtt", lines, "").await;
        assert_eq!(answer.status, status, "{method} {answer:?}");
        let allow = (status != 426).then_some("GET, HEAD, OPTIONS");
        assert_eq!(answer.header("allow"), allow, "{method}");
        assert!(answer.body.is_empty() == (method == "HEAD" || method == "OPTIONS"), "{method} {answer:?}");
    }
}

/// RFC 9110 §9.3.7: the server as a whole. No other method has such a target.
#[tokio::test]
async fn options_asterisk_is_about_the_whole_server() {
    let server = TestServer::start().await;
    let allowed = "GET, HEAD, POST, PUT, DELETE, QUERY, OPTIONS";
    let answer = request(server.http, "OPTIONS", "*", &[], "").await;
    assert_eq!((answer.status, answer.header("allow")), (204, Some(allowed)), "{answer:?}");
    assert!(answer.header("x-request-id").is_some() && answer.body.is_empty(), "{answer:?}");
    for method in ["GET", "POST", "DELETE"] {
        assert_eq!(request(server.http, method, "*", &[], "").await.status, 404, "{method}");
    }

    let mut client = http2(server.http).await;
    let uri = http::Uri::builder()
        .scheme("http")
        .authority(server.http.to_string())
        .path_and_query("*")
        .build()
        .expect("legal");
    let ask = http::Request::options(uri).body(http_body_util::Empty::<bytes::Bytes>::new()).expect("legal");
    let answer = crate::support::within(client.send_request(ask)).await.expect("an answer");
    assert_eq!(answer.status(), 204);
    assert_eq!(answer.headers()["allow"], allowed);
}
