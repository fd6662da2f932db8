//! The commands that look at a running server and change it, and the servers that they know by name.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::subscribe::Sub;
use crate::support::http::post_json;
use crate::support::process::{Ended, Process, run_with_input};

async fn ask(server: &Process, arguments: &[&str]) -> Ended {
    run_with_input(arguments, &[("FANWIRE_URL", &format!("http://{}", server.http))], b"").await
}

async fn done(server: &Process, arguments: &[&str]) -> String {
    let ended = ask(server, arguments).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{arguments:?}");
    ended.out
}

/// The words of a table's lines.
fn words(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test]
async fn who_is_connected_is_listed_and_can_be_closed() {
    let server = Process::start(&[]).await;
    let mut one = Sub::start_at(&server.http.to_string(), &["a/b", "c"]);
    one.told("listening to a/b c at http://").await;
    let mut two = Sub::start_at(&server.http.to_string(), &["other"]);
    two.told("listening to other at ").await;
    let table = done(&server, &["connections"]).await;
    let lines = words(&table);
    assert_eq!(lines.len(), 3, "{table}");
    let of_one = lines.iter().find(|line| line.contains(&"a/b")).expect("the first one");
    assert_eq!(of_one[1..3], ["sse", "http/1.1"], "{table}");
    assert!(of_one.contains(&"127.0.0.1") && of_one.ends_with(&["a/b", "c"]), "{table}");

    let json = done(&server, &["connections", "--channel", "a/b", "--json"]).await;
    let found: Value = serde_json::from_str(json.trim_end()).expect("one object on one line");
    assert_eq!((&found["id"], &found["protocol"]), (&Value::from(of_one[0]), &Value::from("sse")));

    assert_eq!(done(&server, &["close", of_one[0], "--reason", "maintenance"]).await, "");
    one.told("the server ended the stream").await;
    let again = ask(&server, &["close", of_one[0]]).await;
    assert_eq!(again.code, Some(1), "{}", again.err);
    assert!(again.err.contains("410 gone"), "{}", again.err);
    // One that is gone does not keep the other.
    let of_two = lines.iter().find(|line| line.contains(&"other")).expect("the second one")[0];
    let both = ask(&server, &["close", of_one[0], of_two]).await;
    assert_eq!(both.code, Some(1), "{}", both.err);
    assert!(both.err.contains(of_one[0]) && !both.err.contains(of_two), "{}", both.err);
    two.told("the server ended the stream").await;
}

#[tokio::test]
async fn whether_it_lives_is_an_exit_code() {
    let server = Process::start(&[]).await;
    for arguments in [&["health"][..], &["health", "--ready"]] {
        assert_eq!(done(&server, arguments).await, "");
    }
    let nobody = ["health", "--url", "http://127.0.0.1:1"];
    assert_eq!(ask(&server, &nobody).await.code, Some(3));
    // Something else that listens.
    let elsewhere = format!("http://{}/nothing/here", server.http);
    let other = ask(&server, &["health", "--url", &elsewhere]).await;
    assert_eq!(other.code, Some(1), "{}", other.err);
}

#[tokio::test]
async fn lists_of_more_than_a_page_are_whole() {
    let server = Process::start(&[]).await;
    let items: Vec<Value> =
        (0..250).map(|n| serde_json::json!({"channel": format!("many/{n:03}"), "data": n})).collect();
    post_json(server.http, "/v1/publish", Value::from(items).to_string()).await;
    let table = done(&server, &["channels", "many/"]).await;
    assert_eq!(table.lines().count(), 251);
    assert_eq!(words(&table)[250], ["many/249", "0", "1", "no"]);
    let json = done(&server, &["channels", "many/2", "--json"]).await;
    assert_eq!(json.lines().count(), 50);
    assert!(
        json.starts_with(r#"{"channel":"many/200","subscribers":0,"messages":1,"retained":false}"#),
        "{json}"
    );
    assert_eq!(done(&server, &["history", "many/*", "--all"]).await.lines().count(), 250);
    let all: Vec<Value> = done(&server, &["history", "many/*", "--all"])
        .await
        .lines()
        .map(|line| serde_json::from_str(line).expect("an envelope"))
        .collect();
    assert!(all.iter().enumerate().all(|(n, message)| message["data"] == n), "in order, each once");
    let after = all[239]["id"].as_str().expect("an id");
    let rest = done(&server, &["history", "many/*", "--after", after, "--format", "channel"]).await;
    assert_eq!(rest.lines().count(), 10);
    assert!(rest.starts_with("many/240\t240\n"), "{rest}");
    assert_eq!(done(&server, &["history", "many/*", "--last", "2", "--format", "raw"]).await, "248\n249\n");
}

#[tokio::test]
async fn a_gap_in_the_history_is_told() {
    let server = Process::start(&[]).await;
    post_json(server.http, "/v1/publish/a", "1").await;
    let ended = ask(&server, &["history", "a", "--after", "zzzzzzzz-1"]).await;
    // An id of another life of the server: what followed it there is not here.
    assert!(ended.err.contains("gap: what followed zzzzzzzz-1 may be lost"), "{ended:?}");
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "1\n"));
}

#[tokio::test]
async fn retained_messages_are_listed_shown_and_forgotten() {
    let server = Process::start(&[]).await;
    post_json(server.http, "/v1/publish/a%20b/c?retain=true", r#"{"n": 1}"#).await;
    assert_eq!(done(&server, &["retained", "a b/c"]).await, "{\"n\": 1}\n");
    let envelope = done(&server, &["retained", "a b/c", "--format", "json"]).await;
    assert!(envelope.starts_with(r#"{"channel":"a b/c","id":""#), "{envelope}");
    assert_eq!(words(&done(&server, &["channels"]).await)[1], ["a", "b/c", "0", "1", "yes"]);
    for n in 0..120 {
        post_json(server.http, &format!("/v1/publish/kept/{n:03}?retain=true"), n.to_string()).await;
    }
    let table = done(&server, &["retained"]).await;
    assert_eq!(table.lines().count(), 122, "{table}");
    let of_kept = words(&table).into_iter().find(|line| line[0] == "kept/119").expect("on the second page");
    assert_eq!((of_kept[2], of_kept[3]), ("3", "application/json"), "{table}");
    let json = done(&server, &["retained", "a b/*", "--json"]).await;
    assert!(json.starts_with(r#"{"channel":"a b/c","#) && json.lines().count() == 1, "{json}");
    let many = ask(&server, &["retained", "kept/*", "--forget"]).await;
    assert_eq!(many.code, Some(2), "{}", many.err);
    assert_eq!(done(&server, &["retained", "a b/c", "--forget"]).await, "");
    let gone = ask(&server, &["retained", "a b/c"]).await;
    assert_eq!((gone.code, gone.out.as_str()), (Some(1), ""));
    assert!(gone.err.contains("404 not_retained"), "{}", gone.err);
}

#[tokio::test]
async fn what_goes_wrong_has_the_exit_codes_of_pub_and_sub() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = "[[keys]]\nid = \"k\"\nhash = \"sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683\"\n\
                rights = [{ actions = [\"publish\"], channels = [\"#\"] }]\n";
    std::fs::write(file.path(), text).expect("written");
    let server = Process::start(&["--config", file.path().to_str().expect("UTF-8")]).await;
    for command in
        [&["connections"][..], &["close", "x"], &["channels"], &["history", "a"], &["retained", "a"]]
    {
        let nobody = ask(&server, command).await;
        assert_eq!((nobody.code, nobody.out.as_str()), (Some(4), ""), "{command:?}: {}", nobody.err);
        let url = ["--url", "http://127.0.0.1:1"];
        let away = run_with_input(&[command, &url].concat(), &[], b"").await;
        assert_eq!(away.code, Some(3), "{command:?}: {}", away.err);
    }
    let known = ["--token", "key"];
    for command in [&["connections"][..], &["history", "a"], &["retained", "a"]] {
        let refused = ask(&server, &[command, &known].concat()).await;
        assert_eq!(refused.code, Some(5), "{command:?}: {}", refused.err);
    }
}

#[tokio::test]
async fn a_saved_server_is_used_with_its_credentials_and_no_others() {
    let server = Process::start(&[]).await;
    let url = format!("http://{}", server.http);
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().to_str().expect("UTF-8");
    let run = async |arguments: &[&str], more: &[(&str, &str)]| {
        let environment = [&[("XDG_CONFIG_HOME", folder)], more].concat();
        run_with_input(arguments, &environment, b"").await
    };
    let here = run(&["context", "save", "here", "--url", &url, "--token", "secret-of-here"], &[]).await;
    assert_eq!((here.code, here.out.as_str(), here.err.as_str()), (Some(0), "", ""));
    let away =
        run(&["context", "save", "away", "--url", "http://127.0.0.1:1", "--user", "ann:pass"], &[]).await;
    assert_eq!(away.code, Some(0), "{}", away.err);
    let file = home.path().join("fanwire/contexts.json");
    let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // The last one saved is in use; an argument and the environment name another one.
    assert_eq!(run(&["channels"], &[]).await.code, Some(3));
    assert_eq!(run(&["channels", "--context", "here"], &[]).await.code, Some(0));
    assert_eq!(run(&["channels"], &[("FANWIRE_CONTEXT", "here")]).await.code, Some(0));
    assert_eq!(run(&["channels"], &[("FANWIRE_URL", &url)]).await.code, Some(0));
    assert_eq!(run(&["context", "use", "here"], &[]).await.code, Some(0));
    assert_eq!(run(&["pub", "a", "1"], &[]).await.code, Some(0));

    let list = run(&["context", "list"], &[]).await.out;
    let lines = words(&list);
    assert_eq!(lines[1], ["away", "http://127.0.0.1:1", "user", "ann"], "{list}");
    assert_eq!(lines[2], ["*", "here", &url, "token"], "{list}");
    assert!(!list.contains("secret") && !list.contains("pass"), "{list}");

    let unknown = run(&["channels", "--context", "nowhere"], &[]).await;
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.err.contains("no context is called `nowhere` (away, here)"), "{}", unknown.err);
    let wrong = run(&["context", "save", "x", "--url", "ftp://a"], &[]).await;
    assert_eq!(wrong.code, Some(2), "{}", wrong.err);

    assert_eq!(run(&["context", "remove", "here"], &[]).await.code, Some(0));
    let kept = std::fs::read_to_string(&file).expect("it is there");
    assert!(kept.contains("away") && !kept.contains("secret-of-here"), "{kept}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("ours");
    let told = run(&["context", "list"], &[]).await.err;
    assert!(told.contains("can be read by others"), "{told}");
}

#[tokio::test]
async fn the_habits_of_mqtt_are_answered() {
    let server = Process::start(&[]).await;
    let mut sub = Sub::start_at(&server.http.to_string(), &["chat/+"]);
    let hint = sub.told("`+` is").await;
    assert_eq!(hint, "fanwire: `+` is a plain name here, not a wildcard; one segment is `*`: 'chat/*'");
    sub.told("listening to chat/+ at http://").await;
}
