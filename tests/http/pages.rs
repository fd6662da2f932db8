//! Which web pages may use a server without rights, and what their browsers are told.

use fanwire::Filter;
use fanwire::edge::OriginPolicy;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::http::{http2, raw, request};
use crate::support::{TestServer, within};

const EVIL: &str = "https://evil.example";
const LOCAL: [&str; 4] =
    ["http://localhost:5173", "https://localhost", "http://127.0.0.1:3000", "http://[::1]:3000"];

/// What a page could send without asking first, or learn from: a method, a path and a body.
const ASKED: [(&str, &str, &str); 7] = [
    ("POST", "/v1/publish/a", "x"),
    ("GET", "/v1/history/a", ""),
    ("GET", "/v1/connections", ""),
    ("GET", "/metrics", ""),
    ("GET", "/healthz", ""),
    ("HEAD", "/sse/a", ""),
    ("POST", "/cometd", "[]"),
];

#[tokio::test]
async fn a_page_of_the_web_can_neither_read_nor_write_and_one_of_this_machine_can() {
    let server = TestServer::start().await;
    let mut all = server.broker.subscribe(Filter::parse("a").unwrap()).unwrap();
    for (method, path, body) in ASKED {
        for origin in [EVIL, "null", "http://localhost.evil.example"] {
            let headers = [("origin", origin), ("content-type", "text/plain")];
            let answer = request(server.http, method, path, &headers, body).await;
            assert_eq!(answer.status, 403, "{method} {path} {origin}");
            assert_eq!(answer.header("access-control-allow-origin"), None, "{method} {path} {origin}");
            let preflight = [("origin", origin), ("access-control-request-private-network", "true")];
            let answer = request(server.http, "OPTIONS", path, &preflight, "").await;
            assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control")), "{path}");
        }
        for origin in LOCAL {
            let headers = [("origin", origin), ("content-type", "application/json")];
            let answer = request(server.http, method, path, &headers, body).await;
            assert_eq!(answer.status, 200, "{method} {path} {origin}");
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{method} {path}");
        }
    }
    let received = within(all.message()).await.unwrap();
    assert_eq!(received.payload(), "x");
}

#[tokio::test]
async fn a_script_of_another_site_is_refused_without_an_origin_and_a_link_is_followed() {
    let server = TestServer::start().await;
    let script = "/cometd?jsonp=f&message=%5B%5D";
    let site = |site| ("sec-fetch-site", site);
    for (headers, status) in [
        (&[][..], 200),
        (&[site("cross-site")], 403),
        (&[site("cross-site"), ("referer", "https://evil.example/")], 403),
        (&[site("same-site"), ("referer", "http://localhost:3000/app")], 200),
        (&[site("same-origin")], 200),
        (&[site("cross-site"), ("sec-fetch-mode", "navigate")], 200),
    ] {
        let answer = request(server.http, "GET", script, headers, "").await;
        assert_eq!(answer.status, status, "{headers:?}");
    }
}

#[tokio::test]
async fn a_websocket_is_for_pages_of_this_machine_only() {
    let server = TestServer::start().await;
    for path in ["/mqtt", "/cometd"] {
        for (origin, allowed) in [(LOCAL[0], true), (EVIL, false), ("null", false)] {
            let mut upgrade = format!("ws://{}{path}", server.http).into_client_request().unwrap();
            upgrade.headers_mut().insert("origin", origin.parse().unwrap());
            let opened = within(tokio_tungstenite::connect_async(upgrade)).await;
            assert_eq!(opened.is_ok(), allowed, "{path} {origin}");
        }
    }
}

#[tokio::test]
async fn a_star_lets_every_page_in() {
    let server = TestServer::with(|config| {
        config.api.origins = OriginPolicy::Any;
        config.sse.origins = OriginPolicy::Any;
        config.bayeux.origins = OriginPolicy::Any;
    })
    .await;
    for (method, path, body) in ASKED {
        let headers = [("origin", EVIL), ("content-type", "application/json")];
        let answer = request(server.http, method, path, &headers, body).await;
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (200, Some(EVIL)),
            "{path}"
        );
    }
}

#[tokio::test]
async fn preflights_and_answers_allow_the_same_on_every_path() {
    let server = TestServer::start().await;
    let origin = LOCAL[0];
    let preflight = [
        ("origin", origin),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "baggage,content-type,sentry-trace,traceparent"),
        ("access-control-request-private-network", "true"),
    ];
    for path in ["/v1/publish/a", "/v1/history/a", "/sse/a", "/cometd", "/metrics", "/healthz", "/readyz"] {
        let answer = request(server.http, "OPTIONS", path, &preflight, "").await;
        assert_eq!(answer.status, 204, "{path}");
        assert_eq!(answer.header("access-control-allow-private-network"), Some("true"), "{path}");
        let names = answer.header("access-control-allow-headers").expect("a list").to_ascii_lowercase();
        for name in ["baggage", "sentry-trace", "traceparent", "content-type", "last-event-id"] {
            assert!(names.split(", ").any(|one| one == name), "{path}: {name} in {names}");
        }
        let refused = request(server.http, "BREW", path, &preflight[..1], "").await;
        assert_eq!(refused.status, 405, "{path}");
        for answer in [answer, refused] {
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{path}");
            assert_eq!(answer.header("access-control-allow-credentials"), Some("true"), "{path}");
            assert_eq!(answer.header("vary"), Some("Origin"), "{path}");
        }
    }
    let missing = request(server.http, "GET", "/nowhere", &preflight[..1], "").await;
    assert_eq!((missing.status, missing.header("access-control-allow-origin")), (404, Some(origin)));
}

/// A page whose name the attacker has given the server's address comes from the same origin, as browsers see it.
#[tokio::test]
async fn a_name_that_is_not_the_servers_is_421_with_rights_and_without() {
    for rights in [false, true] {
        let server = TestServer::with(|config| {
            config.hosts = None;
            if rights {
                let nobody = fanwire::Principal::anonymous(fanwire::Rights::all());
                config.authenticator = std::sync::Arc::new(fanwire::Anonymous(nobody));
                config.api.origins = OriginPolicy::SameOrigin;
            }
        })
        .await;
        let port = server.http.port();
        for (host, status) in [
            (format!("evil.example:{port}"), "421 Misdirected Request"),
            ("evil.example".to_owned(), "421 Misdirected Request"),
            (format!("localhost:{port}"), "200 OK"),
            (format!("app.localhost:{port}"), "200 OK"),
            (format!("127.0.0.1:{port}"), "200 OK"),
            (format!("[::1]:{port}"), "200 OK"),
        ] {
            for path in ["/healthz", "/v1/history/a", "/"] {
                let asked = format!(
                    "GET {path} HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\nconnection: close\r\n\r\n"
                );
                let answer = String::from_utf8(raw(server.http, asked.as_bytes()).await).unwrap();
                assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{host} {path}: {answer}");
                assert_eq!(answer.contains("host_not_allowed"), status.starts_with("421"), "{answer}");
            }
        }
        let mut client = http2(server.http).await;
        for (authority, status) in [("evil.example", 421), ("localhost", 200)] {
            let asked = http::Request::get(format!("http://{authority}:{port}/healthz"));
            let asked = asked.body(http_body_util::Empty::new()).unwrap();
            assert_eq!(within(client.send_request(asked)).await.unwrap().status(), status, "{authority}");
        }
        let metrics = request(server.http, "GET", "/metrics", &[], "").await;
        assert!(metrics.text().contains("\nfanwire_refused_hosts_total 7\n"), "{}", metrics.text());
    }
}
