//! Who may read the numbers of the whole broker.

use crate::support::http::{Answer, get, request};
use crate::support::process::Process;

/// A scraper, an administrator, somebody with rights to all channels but not to manage, and somebody who may manage
/// some.
fn keys() -> String {
    let key = |id: &str, actions: &str, channel: &str| {
        let hash = fanwire::auth::KeyHash::of(id.as_bytes());
        format!(
            "[[keys]]\nid = \"{id}\"\nhash = \"{hash}\"\nrights = [{{ actions = [{actions}], channels = [\"{channel}\"] }}]\n"
        )
    };
    key("scraper", "\"manage\"", "$SYS/metrics")
        + &key("admin", "\"manage\"", "#")
        + &key("backend", "\"publish\", \"subscribe\", \"history\", \"presence\"", "#")
        + &key("moderator", "\"manage\"", "chat/**")
}

async fn start(more: &str) -> (Process, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("{more}\n{}", keys())).expect("written");
    (Process::start(&["--config", file.path().to_str().expect("a path")]).await, file)
}

async fn scrape(server: &Process, method: &str, secret: &str) -> Answer {
    let bearer = format!("Bearer {secret}");
    request(server.http, method, "/metrics", &[("authorization", &bearer)], "").await
}

#[tokio::test]
async fn numbers_are_for_who_may_manage_them_if_that_is_asked_for() {
    let (server, _file) = start("[http]\nmetrics = \"manage\"").await;
    for (secret, status, code) in [
        ("scraper", 200, ""),
        ("admin", 200, ""),
        ("backend", 403, "forbidden"),
        ("moderator", 403, "forbidden"),
        ("made-up", 401, "invalid_credentials"),
    ] {
        let answer = scrape(&server, "GET", secret).await;
        assert_eq!(answer.status, status, "{secret} {answer:?}");
        if status == 200 {
            assert!(answer.text().contains("fanwire_published_messages_total 0"), "{secret}");
        } else {
            assert_eq!(answer.code(), code, "{secret}");
        }
        assert_eq!(scrape(&server, "HEAD", secret).await.status, status, "{secret}");
    }
    let nobody = get(server.http, "/metrics").await;
    assert_eq!((nobody.status, &*nobody.code()), (401, "credentials_required"));
    assert!(nobody.header("www-authenticate").is_some(), "{nobody:?}");
    // The scraper's key is good for nothing else, and health is for everybody.
    let bearer = [("authorization", "Bearer scraper")];
    for target in ["/v1/connections", "/v1/history/a", "/v1/presence/a"] {
        assert_eq!(request(server.http, "GET", target, &bearer, "").await.status, 403, "{target}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(server.http, path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn on_loopback_numbers_are_for_everybody_unless_it_is_said() {
    let (server, _file) = start("").await;
    assert_eq!(get(server.http, "/metrics").await.status, 200);
    // Credentials are not looked at, as with health: a scraper with an old key goes on.
    assert_eq!(scrape(&server, "GET", "made-up").await.status, 200);
}
