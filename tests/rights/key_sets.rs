//! Key sets over https, as in a company with an authority of its own.

use std::path::Path;

use fanwire::auth::{Access, Algorithm as Accepted, KeySource};
use jsonwebtoken::Algorithm;
use rustix::process::Signal;
use serde_json::json;

use crate::attempts::{is_let_in, issuer, server};
use crate::sets::{SetServer, claims, encoding_key, header, jwk, sign};
use crate::support::http::request;
use crate::support::process::{Process, run};
use crate::support::tls::{Authority, Identity, TlsProxy};
use crate::support::within;

const ISS: &str = "https://login.corp.example";

fn token(algorithm: Algorithm, kid: &str) -> String {
    sign(&header(algorithm, Some(kid)), &claims(ISS), &encoding_key(algorithm))
}

/// A set with one key behind TLS.
async fn shown_by(identity: Identity) -> (SetServer, TlsProxy, String) {
    let set = SetServer::start(json!([jwk(Algorithm::ES256, "one")])).await;
    let proxy = TlsProxy::start(identity, set.address).await;
    let url = format!("https://localhost:{}/jwks.json", proxy.address.port());
    (set, proxy, url)
}

/// Status and code of a publish with a token of the set's key.
async fn answered(url: &str, ca_file: Option<&str>) -> (u16, String) {
    let source = KeySource::JwksUrl { url: url.to_owned(), ca_file: ca_file.map(Into::into) };
    let mut access = Access::default();
    access.issuers = vec![issuer(ISS, Accepted::Es256, source)];
    let server = server(access).await;
    let bearer = format!("Bearer {}", token(Algorithm::ES256, "one"));
    let headers = [("authorization", &*bearer)];
    let answer = request(server.http, "POST", "/v1/publish/orders/ann/1", &headers, "x").await;
    let code = if answer.status == 200 { String::new() } else { answer.code() };
    (answer.status, code)
}

#[tokio::test]
async fn a_set_is_had_from_a_server_that_the_configured_authority_vouches_for() {
    let authority = Authority::new();
    let (set, _proxy, url) = shown_by(authority.issue(&["localhost"])).await;
    assert_eq!(answered(&url, Some(authority.file())).await, (200, String::new()));
    assert_eq!(set.times_asked(), 1);
    // On every front, and for addresses too.
    let (_set, proxy, _) = shown_by(authority.issue(&["127.0.0.1"])).await;
    let url = format!("https://{}/jwks.json", proxy.address);
    let source = KeySource::JwksUrl { url, ca_file: Some(authority.file().into()) };
    let mut access = Access::default();
    access.issuers = vec![issuer(ISS, Accepted::Es256, source)];
    let server = server(access).await;
    for front in ["publish, Bearer", "sse", "mqtt 5", "bayeux websocket, ext"] {
        assert!(is_let_in(&server, front, &token(Algorithm::ES256, "one")).await, "{front}");
    }
}

#[tokio::test]
async fn nothing_is_asked_of_a_server_that_nobody_vouches_for() {
    let (authority, other) = (Authority::new(), Authority::new());
    let expired = |params: &mut rcgen::CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 3, 4);
    };
    let ours = Some(authority.file());
    for (what, identity, ca_file) in [
        ("another authority", other.issue(&["localhost"]), ours),
        ("the web's authorities do not know ours", authority.issue(&["localhost"]), None),
        ("another name", authority.issue(&["login.corp.example"]), ours),
        ("expired", authority.issue_with(&["localhost"], expired), ours),
    ] {
        let (set, proxy, url) = shown_by(identity).await;
        let unavailable = (503, "credentials_unavailable".to_owned());
        assert_eq!(answered(&url, ca_file).await, unavailable, "{what}");
        assert_eq!((proxy.passed(), set.times_asked()), (0, 0), "{what}");
    }
}

/// With a key whose secret tells when it was taken over.
fn configuration(url: &str, ca_file: &str, probe: &str) -> String {
    let granted = "rights = [{ actions = [\"publish\"], channels = [\"#\"] }]";
    let probe = fanwire::auth::KeyHash::of(probe.as_bytes());
    format!(
        "[server]\nreload_interval = \"0s\"\n[[keys]]\nid = \"probe\"\nhash = \"{probe}\"\n{granted}\n\
         [[issuers]]\niss = \"{ISS}\"\naud = \"fanwire\"\nalgorithms = [\"ES256\", \"EdDSA\"]\njwks_url = \"{url}\"\n\
         jwks_ca_file = \"{ca_file}\"\njwks_cooldown = \"0s\"\n"
    )
}

async fn status(server: &Process, secret: &str) -> u16 {
    let bearer = format!("Bearer {secret}");
    let headers = [("authorization", &*bearer)];
    request(server.http, "POST", "/v1/publish/orders/ann/1", &headers, "x").await.status
}

/// The file is found beside the configuration, and its successor is read at a reload, without the keys getting lost.
#[tokio::test]
async fn the_authority_is_a_file_beside_the_configuration_and_can_be_renewed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (old, new) = (Authority::new(), Authority::new());
    let copy = |authority: &Authority, name: &str| {
        std::fs::copy(Path::new(authority.file()), path(name)).expect("copied");
    };
    copy(&old, "ca.pem");
    let (set, _first, url) = shown_by(old.issue(&["localhost"])).await;
    std::fs::write(path("fanwire.toml"), configuration(&url, "ca.pem", "first")).expect("written");
    let config = path("fanwire.toml");
    let server = Process::start(&["--config", config.to_str().expect("a path")]).await;
    let (one, two) = (token(Algorithm::ES256, "one"), token(Algorithm::EdDSA, "two"));
    assert_eq!((status(&server, &one).await, status(&server, &two).await), (200, 401));

    // The issuer moves to a server with a certificate of a new authority, and has a new key.
    let renewed = TlsProxy::start(new.issue(&["localhost"]), set.address).await;
    let moved = format!("https://localhost:{}/jwks.json", renewed.address.port());
    copy(&new, "ca.pem");
    std::fs::write(&config, configuration(&url, "ca.pem", "second")).expect("written");
    server.signal(Signal::HUP);
    within(async { while status(&server, "second").await != 200 {} }).await;
    // The new authority does not vouch for the server at the old address: nothing is asked there, and what was had from it stays.
    set.show(Some(json!([jwk(Algorithm::EdDSA, "two")])));
    let asked = set.times_asked();
    assert_eq!((status(&server, &one).await, status(&server, &two).await), (200, 401));
    assert_eq!(set.times_asked(), asked);
    std::fs::write(&config, configuration(&moved, "ca.pem", "third")).expect("written");
    server.signal(Signal::HUP);
    within(async { while status(&server, &two).await != 200 {} }).await;
    assert_eq!(status(&server, &one).await, 401);
}

#[tokio::test]
async fn a_file_without_a_certificate_is_told_by_its_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("fanwire.toml");
    std::fs::write(folder.path().join("empty.pem"), "nothing\n").expect("written");
    for (ca_file, why) in [("missing.pem", "No such file"), ("empty.pem", "no certificate")] {
        std::fs::write(&config, configuration("https://localhost/jwks.json", ca_file, "probe"))
            .expect("written");
        let (code, said) = run(&["check-config", config.to_str().expect("a path")], &[]).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("`issuers[0].jwks_ca_file`") && said.contains(why), "{said}");
    }
}
