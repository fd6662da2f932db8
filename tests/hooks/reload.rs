//! Webhooks of a configuration that changes while the binary serves.

use rustix::process::Signal;
use serde_json::json;

use crate::backend::{Backend, SECRET};
use crate::support::http::{get, post, request};
use crate::support::process::Process;
use crate::support::{eventually, within};

fn hook(id: &str, url: &str, events: &str) -> String {
    format!(
        "[[gateway.webhooks]]\nid = \"{id}\"\nurl = \"{url}\"\nsecret = \"{SECRET}\"\nevents = [{events}]\n"
    )
}

/// Writes the file, and waits until the server has read it.
async fn reload(server: &Process, file: &std::path::Path, hooks: &[String], known: usize) {
    std::fs::write(file, text(hooks)).expect("written");
    server.signal(Signal::HUP);
    within(async {
        loop {
            let listed = get(server.http, "/v1/webhooks").await.json();
            let urls: Vec<_> = listed["webhooks"].as_array().expect("a list").clone();
            if urls.len() == known
                && hooks.iter().all(|hook| urls.iter().any(|one| hook.contains(one["url"].as_str().unwrap())))
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

fn text(hooks: &[String]) -> String {
    format!("[server]\nreload_interval = \"0s\"\n{}", hooks.concat())
}

#[tokio::test]
async fn webhooks_of_the_file_are_read_again_and_what_waits_goes_on() {
    let backend = Backend::start(|asked| match asked.head.split(' ').nth(1) {
        Some("/fails") => (503, String::new()),
        Some("/denies") => (403, String::new()),
        _ => (204, String::new()),
    })
    .await;
    let to = |path: &str| format!("http://{}{path}", backend.address);
    let called = |path: &str| {
        let begin = format!("POST {path} ");
        backend.asked().into_iter().filter(|asked| asked.head.starts_with(&begin)).collect::<Vec<_>>()
    };
    let file = tempfile::NamedTempFile::new().expect("a file");
    let stays = hook("stays", &to("/stays"), "\"message\"");
    let first = [
        stays.clone(),
        hook("moves", &to("/fails"), "\"message\""),
        hook("goes", &to("/denies"), "\"publish\""),
    ];
    std::fs::write(file.path(), text(&first)).expect("written");
    let path = file.path().to_str().expect("a path").to_owned();
    let server = Process::start(&["--config", &path]).await;
    assert_eq!(post(server.http, "/v1/publish/a", "x").await.status, 403);
    // One without a decision, so that something waits for who moves.
    reload(&server, file.path(), &first[..2], 2).await;
    assert_eq!(post(server.http, "/v1/publish/a", "one").await.status, 200);
    eventually(|| called("/stays").len() == 1 && called("/fails").len() == 1).await;
    let id = called("/fails")[0].header("webhook-id").map(str::to_owned);

    let second = [
        stays.clone(),
        hook("moves", &to("/moved"), "\"message\""),
        hook("comes", &to("/denies"), "\"publish\""),
    ];
    reload(&server, file.path(), &second, 3).await;
    eventually(|| called("/moved").len() == 1).await;
    let moved = called("/moved").remove(0);
    assert_eq!((moved.header("webhook-id"), &moved.body["data"]["text"]), (id.as_deref(), &json!("one")));
    assert_eq!(post(server.http, "/v1/publish/a", "x").await.status, 403);
    assert_eq!(called("/stays").len(), 1, "who stays hears nothing twice");

    // One that was put in the place of one of the file stays there, whatever the file says.
    let own = json!({"url": "https://a.example/", "secret": SECRET, "events": ["source"]});
    let headers = [("content-type", "application/json")];
    let put = request(server.http, "PUT", "/v1/webhooks/comes", &headers, own.to_string()).await;
    assert_eq!(put.status, 200, "{put:?}");
    let third = [stays, hook("new", &to("/new"), "\"message\"")];
    std::fs::write(file.path(), text(&third)).expect("written");
    server.signal(Signal::HUP);
    within(async { while get(server.http, "/v1/webhooks/new").await.status != 200 {} }).await;
    let listed = get(server.http, "/v1/webhooks").await.json();
    let ids: Vec<_> = listed["webhooks"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, ["stays", "new", "comes"], "those of the file first");

    // A file that is wrong changes nothing.
    std::fs::write(file.path(), text(&[hook("stays", "ftp://nowhere/", "\"message\"")])).expect("written");
    server.signal(Signal::HUP);
    assert_eq!(post(server.http, "/v1/publish/a", "two").await.status, 200);
    eventually(|| called("/new").len() == 1 && called("/stays").len() == 2).await;
    assert_eq!(get(server.http, "/v1/webhooks/new").await.status, 200);
}
