//! `fanwire key`, `fanwire check-config`.

use crate::support::process::run_with_input;

async fn run(arguments: &[&str]) -> crate::support::process::Ended {
    run_with_input(arguments, &[], b"").await
}

#[tokio::test]
async fn a_new_key_is_a_configuration_and_works() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("fanwire.toml");
    let path = file.to_str().expect("a path");
    let new = run(&[
        "key",
        "new",
        "--id",
        "billing",
        "--rights",
        "publish,history:orders/**,news",
        "--append-to",
        path,
    ])
    .await;
    assert_eq!(new.code, Some(0), "{new:?}");
    let secret = new.out.trim_end();
    assert!(secret.starts_with("fw_") && secret.len() == 46, "{new:?}");
    let written = std::fs::read_to_string(&file).expect("written");
    assert!(!written.contains(secret) && written.contains("id = \"billing\""), "{written}");

    let second = run(&["key", "new"]).await;
    let (secret_line, entry) = second.out.split_once("\n\n").expect("two parts");
    assert!(secret_line.starts_with("fw_") && !entry.contains(secret_line), "{second:?}");
    std::fs::write(&file, written + entry).expect("written");
    let checked = run(&["check-config", path]).await;
    assert_eq!(
        (checked.code, &*checked.out),
        (
            Some(0),
            "ok http=127.0.0.1:8080 mqtt=127.0.0.1:1883 keys=2 users=0 issuers=0 anonymous=\"no rights\"\n"
        ),
        "{checked:?}"
    );

    let server = crate::support::process::Process::start(&["--config", path]).await;
    let bearer = format!("Bearer {secret}");
    for (channel, status) in [("orders/1", 200), ("news", 200), ("orders", 403), ("other", 403)] {
        let target = format!("/v1/publish/{channel}");
        let answer =
            crate::support::http::request(server.http, "POST", &target, &[("authorization", &bearer)], "x")
                .await;
        assert_eq!(answer.status, status, "{channel}");
    }
}

#[tokio::test]
async fn a_key_is_not_added_to_what_would_not_load_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("fanwire.toml");
    let path = file.to_str().expect("a path");
    let hash = fanwire::auth::KeyHash::of(b"x");
    let taken = format!("[[keys]]\nid = \"new\"\nhash = \"{hash}\"\n");
    for (text, why) in [
        (taken.as_str(), "`keys[1].id`: empty, or the id of another key"),
        ("keys = []\n", "TOML parse error"),
        ("garbage", "TOML parse error"),
        ("[server]\nno_such_key = 1\n", "unknown key `server.no_such_key`"),
    ] {
        std::fs::write(&file, text).expect("written");
        let said = run(&["key", "new", "--id", "new", "--append-to", path]).await;
        assert_eq!((said.code, &*said.out), (Some(2), ""), "no secret of a key that is not there: {said:?}");
        assert!(said.err.starts_with("fanwire: not added, ") && said.err.contains(why), "{said:?}");
        assert_eq!(std::fs::read_to_string(&file).expect("it is there"), text);
    }
    // Without a line break at its end, and with other things in it.
    std::fs::write(&file, "[server]\nreload_interval = \"1s\"").expect("written");
    assert_eq!(run(&["key", "new", "--append-to", path]).await.code, Some(0));
    assert_eq!(run(&["check-config", path]).await.code, Some(0));
    let nowhere = folder.path().join("no/such/folder.toml");
    let said = run(&["key", "new", "--append-to", nowhere.to_str().expect("a path")]).await;
    assert_eq!((said.code, &*said.out), (Some(2), ""), "{said:?}");
}

#[tokio::test]
async fn a_password_is_hashed_from_standard_input() {
    let hashed = run_with_input(&["key", "hash-password"], &[], b"correct horse\n").await;
    assert!(hashed.code == Some(0) && hashed.out.starts_with("$argon2id$"), "{hashed:?}");
    let file = tempfile::NamedTempFile::new().expect("a file");
    let entry = format!("[[users]]\nname = \"ann\"\npassword_hash = \"{}\"\n", hashed.out.trim_end());
    std::fs::write(file.path(), entry).expect("written");
    let server =
        crate::support::process::Process::start(&["--config", file.path().to_str().expect("a path")]).await;
    assert_eq!(crate::attempts::connack(server.mqtt, 4, "correct horse").await, [0x20, 2, 0, 0]);
    assert_eq!(crate::attempts::connack(server.mqtt, 4, "correct horse\n").await, [0x20, 2, 0, 4]);
    assert_eq!(run_with_input(&["key", "hash-password"], &[], b"\n").await.code, Some(2));
}

#[tokio::test]
async fn what_is_wrong_with_rights_is_said_with_its_place() {
    let hash = fanwire::auth::KeyHash::of(b"x");
    let key = |rest: &str| format!("[[keys]]\nid = \"a\"\nhash = \"{hash}\"\n{rest}\n");
    let issuer = |rest: &str| format!("[[issuers]]\niss = \"x\"\n{rest}\n");
    let cases = [
        (key("rigths = []"), "unknown key `keys[0].rigths`, did you mean `keys[0].rights`?"),
        (
            key("rights = [{ actions = [\"publish\"], channel = [\"a\"] }]"),
            "did you mean `keys[0].rights[0].channels`?",
        ),
        (key("rights = [{ actions = [\"fly\"], channels = [\"a\"] }]"), "\"fly\" is none of \"publish\""),
        (key("rights = [{ actions = [\"publish\"], channels = [\"#/a\"] }]"), "`#` must be the last segment"),
        (key("rate = 0"), "keys[0].rate"),
        (key("") + &key(""), "`keys[1].id`: empty, or the id of another key"),
        ("[[keys]]\nid = \"a\"\nhash = \"secret\"".into(), "64 hexadecimal digits"),
        (
            "[[users]]\nname = \"a\"\npassword_hash = \"secret\"".into(),
            "`users[0].password_hash`: not an argon2 hash",
        ),
        (
            issuer("algorithms = [\"HS256\"]\nsecret = \"short\""),
            "`issuers[0].secret`: HS256 needs at least 32 bytes",
        ),
        (issuer("algorithms = [\"none\"]\nsecret = \"short\""), "\"none\" is none of \"HS256\""),
        (
            issuer("algorithms = [\"HS256\", \"RS256\"]\njwks_file = \"x\""),
            "`issuers[0].algorithms`: HS256 cannot stand beside",
        ),
        (
            issuer("algorithms = [\"RS256\"]\nsecret = \"x\""),
            "`issuers[0].secret`: a secret is for HS256 only",
        ),
        (issuer("algorithms = [\"RS256\"]\npem_file = \"not-there.pem\""), "not-there.pem: No such file"),
        (
            issuer(&format!(
                "algorithms = [\"ES256\"]\npem_file = {:?}",
                crate::sets::key_file("rsa.public.pem")
            )),
            "not a PEM public key for ES256",
        ),
        (
            issuer(&format!(
                "algorithms = [\"RS256\"]\npem_file = {:?}",
                crate::sets::key_file("rsa.private.pem")
            )),
            "a private key; the public one is needed",
        ),
        (issuer("algorithms = [\"RS256\"]"), "`issuers[0]`: one of `secret`"),
        (
            issuer("algorithms = [\"RS256\"]\njwks_url = \"file:///etc/passwd\""),
            "is not an http or https address",
        ),
        (
            "[[anonymous.allow]]\nactions = [\"publish\"]\nchannels = [\"a/{user}\"]".into(),
            "anonymous clients have none",
        ),
    ];
    for (text, expected) in cases {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &text).expect("written");
        let path = file.path().to_str().expect("a path");
        let checked = run(&["check-config", path]).await;
        assert_eq!((checked.code, &*checked.out), (Some(2), ""), "{text}");
        assert!(checked.err.contains(expected) && checked.err.contains(path), "{text}: {}", checked.err);
        assert_eq!(checked.err.lines().count(), 1, "{}", checked.err);
    }
}

#[tokio::test]
async fn arguments_of_a_new_key_that_make_no_sense_are_refused() {
    for wrong in [
        &["key", "new", "--id", "a b"][..],
        &["key", "new", "--rights", "orders"],
        &["key", "new", "--rights", "fly:orders"],
        &["key", "new", "--rights", "publish:#/x"],
        &["key"],
        &["key", "old"],
        &["check-config", "/not/there.toml"],
    ] {
        let said = run(wrong).await;
        assert_eq!((said.code, &*said.out), (Some(2), ""), "{wrong:?} {said:?}");
    }
}
