use crate::support::TestServer;
use crate::support::http::{get, request};

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
        assert!(answer.header("x-request-id").is_some() || path == "/sse", "{path}");
    }
    for path in ["/cometd", "/mqtt"] {
        let answer = get(server.http, path).await;
        assert!((400..500).contains(&answer.status) && answer.status != 404, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn without_rights_every_page_may_come_and_credentials_go_to_cometd_alone() {
    let server = TestServer::start().await;
    let preflight = [("origin", "https://a.example"), ("access-control-request-method", "POST")];
    for (path, credentials) in [("/v1/publish/a", None), ("/sse/a", None), ("/cometd", Some("true"))] {
        let answer = request(server.http, "OPTIONS", path, &preflight, "").await;
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some("https://a.example"),
            "{path} {answer:?}"
        );
        assert_eq!(answer.header("access-control-allow-credentials"), credentials, "{path}");
        assert_eq!(answer.header("vary"), Some("Origin"), "{path}");
    }
}
