//! `fanwire token …`: what it makes a server takes, and what it says of a token the server says too.

use std::path::{Path, PathBuf};

use crate::sets::{SECRET, SetServer, jwk, key_file};
use crate::support::http::request;
use crate::support::process::{Ended, Process, run_with_input};

async fn run(arguments: &[&str], input: &str) -> Ended {
    run_with_input(arguments, &[], input.as_bytes()).await
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A configuration with one issuer.
fn configuration(folder: &Path, issuer: &str) -> PathBuf {
    let file = folder.join("fanwire.toml");
    let rights = "rights = [{ actions = [\"subscribe\"], channels = [\"news\"] }]";
    std::fs::write(&file, format!("[[issuers]]\niss = \"us\"\naud = [\"fanwire\"]\n{issuer}\n{rights}\n"))
        .expect("written");
    file
}

async fn status(server: &Process, token: &str, channel: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let target = format!("/v1/publish/{channel}");
    request(server.http, "POST", &target, &[("authorization", &bearer)], "x").await.status
}

#[tokio::test]
async fn a_token_of_the_configurations_secret_is_taken_for_what_it_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = configuration(folder.path(), &format!("algorithms = [\"HS256\"]\nsecret = \"{SECRET}\""));
    let config = ["--config", text(&file)];
    let rights = ["--sub", "ann", "--rights", "publish:orders/{user}/**", "--ttl", "10m"];
    let minted = run(&[&["token", "mint"], &config[..], &rights[..]].concat(), "").await;
    assert_eq!((minted.code, minted.err.as_str()), (Some(0), ""));
    let token = minted.out.trim_end();
    let server = Process::start(&config).await;
    assert_eq!(status(&server, token, "orders/ann/1").await, 200);
    assert_eq!(status(&server, token, "orders/bob/1").await, 403);

    for (input, argument) in [("", Some(token)), (token, None), (token, Some("-"))] {
        let checked = run(&[&["token", "check"], argument.as_slice(), &config[..]].concat(), input).await;
        assert_eq!((checked.code, checked.err.as_str()), (Some(0), ""));
        assert!(checked.out.starts_with("user: ann\nvouched for by: Token us\nuntil: 20"), "{}", checked.out);
    }
    let may = |wish: &'static str| [&["token", "check", token], &config[..], &["--may", wish]].concat();
    assert_eq!(run(&may("publish:orders/ann/1"), "").await.code, Some(0));
    let not = run(&may("subscribe:orders/ann/1"), "").await;
    assert_eq!((not.code, not.err.as_str()), (Some(5), "fanwire: it may not subscribe orders/ann/1\n"));
    assert_eq!(run(&may("fly:a"), "").await.code, Some(2));

    // Without rights of its own it has the issuer's.
    let plain = run(&[&["token", "mint"], &config[..]].concat(), "").await;
    let checked = run(
        &[&["token", "check", plain.out.trim_end()], &config[..], &["--may", "subscribe:news"]].concat(),
        "",
    )
    .await;
    assert_eq!((checked.code, checked.err.as_str()), (Some(0), ""));
    assert!(checked.out.starts_with("user: none\n"), "{}", checked.out);
}

#[tokio::test]
async fn private_keys_sign_for_an_issuer_whose_public_ones_are_known() {
    let folder = tempfile::tempdir().expect("a folder");
    for (algorithm, private, public) in [
        ("RS256", "rsa.private.pem", "rsa.public.pem"),
        ("ES256", "ec.private.pem", "ec.public.pem"),
        ("EdDSA", "ed.private.pem", "ed.public.pem"),
    ] {
        let issuer = format!("algorithms = [\"{algorithm}\"]\npem_file = \"{}\"", text(&key_file(public)));
        let file = configuration(folder.path(), &issuer);
        let config = ["--config", text(&file)];
        let key = key_file(private);
        let minted = run(&[&["token", "mint", "--key-file", text(&key)], &config[..]].concat(), "").await;
        assert_eq!((minted.code, minted.err.as_str()), (Some(0), ""), "{algorithm}");
        let checked = run(&[&["token", "check", minted.out.trim_end()], &config[..]].concat(), "").await;
        assert_eq!((checked.code, checked.err.as_str()), (Some(0), ""), "{algorithm}");
        let without = run(&[&["token", "mint"], &config[..]].concat(), "").await;
        assert_eq!(without.code, Some(2));
        assert!(without.err.contains("--key-file FILE has it"), "{}", without.err);
    }
    // The last configuration takes EdDSA alone.
    let file = folder.path().join("fanwire.toml");
    let key = key_file("rsa.private.pem");
    let wrong = run(&["token", "mint", "--key-file", text(&key), "--config", text(&file)], "").await;
    assert_eq!((wrong.code, wrong.err.as_str()), (Some(2), "fanwire: the issuer does not accept RS256\n"));
}

#[tokio::test]
async fn what_is_refused_and_what_cannot_be_checked_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "another secret of thirty-two bytes\n").expect("written");
    let foreign =
        run(&["token", "mint", "--secret-file", text(&secret), "--iss", "us", "--aud", "fanwire"], "").await;
    assert_eq!((foreign.code, foreign.err.as_str()), (Some(0), ""));
    let file = configuration(folder.path(), &format!("algorithms = [\"HS256\"]\nsecret = \"{SECRET}\""));
    let refused = run(&["token", "check", "--config", text(&file)], &foreign.out).await;
    assert_eq!((refused.code, refused.out.as_str()), (Some(4), ""));
    assert!(refused.err.starts_with("fanwire: invalid credentials: "), "{}", refused.err);

    let set = SetServer::start(serde_json::json!([jwk(jsonwebtoken::Algorithm::ES256, "one")])).await;
    let file =
        configuration(folder.path(), &format!("algorithms = [\"ES256\"]\njwks_url = \"{}\"", set.url()));
    let key = key_file("ec.private.pem");
    let mint = ["token", "mint", "--kid", "one", "--key-file", text(&key), "--config", text(&file)];
    let token = run(&mint, "").await.out;
    let check = ["token", "check", "--config", text(&file)];
    assert_eq!(run(&check, &token).await.code, Some(0));
    set.show(None);
    assert_eq!(run(&check, &token).await.code, Some(6));

    std::fs::write(&secret, "short").expect("written");
    let short = run(&["token", "mint", "--secret-file", text(&secret)], "").await;
    assert_eq!(short.code, Some(2));
    assert!(short.err.contains("HS256 needs at least 32 bytes"), "{}", short.err);
    let nothing = run(&["token", "mint"], "").await;
    assert_eq!(nothing.code, Some(2), "{}", nothing.err);
}
