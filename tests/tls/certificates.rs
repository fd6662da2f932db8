//! Which certificates are shown, and what becomes of them.

use std::path::Path;
use std::time::Duration;

use rcgen::CertificateParams;
use tokio::io::AsyncReadExt as _;

use crate::served::Secured;
use crate::support::process::{Process, run_with_input};
use crate::support::tls::{Asking, Authority};
use crate::support::within;

async fn subject(authority: &Authority, to: std::net::SocketAddr, name: &str) -> Vec<u8> {
    let stream = authority.connect(to, Asking { name, ..Asking::default() }).await.expect("trusted");
    let (_, session) = stream.get_ref();
    session.peer_certificates().expect("shown")[0].to_vec()
}

#[tokio::test]
async fn the_certificate_of_the_name_that_is_asked_for_is_shown() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    let mut config = String::from("[http]\ntls_address = \"127.0.0.1:0\"\n");
    for (index, names) in
        [&["localhost"][..], &["a.example", "b.example"], &["*.c.example"]].iter().enumerate()
    {
        authority.issue(names).write(folder.path(), &index.to_string());
        config += &format!("[[tls.certificates]]\ncert_file = \"{index}.crt\"\nkey_file = \"{index}.key\"\n");
    }
    let file = folder.path().join("fanwire.toml");
    std::fs::write(&file, config).expect("written");
    let server = Process::start(&["--config", file.to_str().expect("UTF-8")]).await;
    let to = server.https.expect("TLS is spoken");
    let mut shown = Vec::new();
    for name in ["localhost", "a.example", "B.example", "x.c.example"] {
        shown.push(subject(&authority, to, name).await);
    }
    assert!(shown[0] != shown[1] && shown[1] == shown[2] && shown[3] != shown[1]);
    // Another name gets the first one, and does not trust it.
    let other = authority.connect(to, Asking { name: "d.example", ..Asking::default() }).await;
    assert!(other.unwrap_err().to_string().contains("certificate"));
}

#[tokio::test]
async fn changed_files_are_taken_over_and_wrong_ones_are_not() {
    let it = Secured::start("[server]\nreload_interval = \"100ms\"\n").await;
    let to = it.server.https.expect("TLS is spoken");
    let first = subject(&it.authority, to, "localhost").await;
    let changed = async |before: &Vec<u8>| {
        within(async {
            loop {
                let now = subject(&it.authority, to, "localhost").await;
                if now != *before {
                    return now;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
    };
    it.authority.issue(&["localhost"]).write(it.folder.path(), "server");
    let second = changed(&first).await;
    // A file that is none, a key that is another's, one that is over: each is refused, and counted.
    let refused = async |count: u32| {
        let wanted = format!("fanwire_tls_reloads_total{{outcome=\"refused\"}} {count}\n");
        within(async {
            while !it.curl(&[&it.url("/metrics")]).await.contains(&wanted) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        assert!(subject(&it.authority, to, "localhost").await == second);
    };
    let certificate = it.folder.path().join("server.crt");
    std::fs::write(&certificate, "no certificate").expect("written");
    refused(1).await;
    let (other, _) = it.authority.issue(&["localhost"]).write(it.folder.path(), "other");
    std::fs::copy(other, &certificate).expect("copied");
    refused(2).await;
    it.authority.issue_with(&["localhost"], over).write(it.folder.path(), "server");
    refused(3).await;
    it.authority.issue(&["localhost"]).write(it.folder.path(), "server");
    changed(&second).await;
}

fn over(params: &mut CertificateParams) {
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 3, 4);
}

async fn check(folder: &Path, config: &str) -> (Option<i32>, String) {
    let file = folder.join("checked.toml");
    std::fs::write(&file, config).expect("written");
    let done = run_with_input(&["check-config", file.to_str().expect("UTF-8")], &[], b"").await;
    (done.code, done.out + &done.err)
}

#[tokio::test]
async fn check_config_finds_what_clients_would_find() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    let at = folder.path();
    authority.issue(&["localhost", "a.example"]).write(at, "good");
    authority.issue(&["localhost"]).write(at, "other");
    authority.issue_with(&["localhost"], over).write(at, "over");
    let read = |name: &str| std::fs::read_to_string(at.join(name)).expect("written");
    let root = std::fs::read_to_string(authority.file()).expect("written");
    std::fs::write(at.join("chain.crt"), read("good.crt") + &root).expect("written");
    std::fs::write(at.join("broken.crt"), read("good.crt") + &read("other.crt")).expect("written");
    let tls = |cert: &str, key: &str| format!("[tls]\ncert_file = \"{cert}\"\nkey_file = \"{key}\"\n");
    for (config, code, said) in [
        (tls("good.crt", "good.key"), 0, "certificate=\"localhost,a.example\" days_left="),
        (tls("chain.crt", "good.key"), 0, "certificate=\"localhost,a.example\" days_left="),
        (tls("good.crt", "other.key"), 2, "other.key: is not the key of "),
        (tls("over.crt", "over.key"), 2, "over.crt: expired at "),
        (tls("broken.crt", "good.key"), 2, "broken.crt: its certificates do not follow from one another"),
        (tls("none.crt", "good.key"), 2, "none.crt: "),
        (tls("good.key", "good.key"), 2, "good.key: no certificate in PEM is in it"),
        (tls("good.crt", "good.crt"), 2, "good.crt: no private key in PEM"),
        (
            "[tls]\ncert_file = \"good.crt\"\n".to_owned(),
            2,
            "`tls.key_file`: the key of `tls.cert_file` is missing",
        ),
        ("[mqtt]\ntls_address = \"127.0.0.1:8883\"\n".to_owned(), 2, "TLS needs a certificate"),
        ("[http]\ntls = \"required\"\n".to_owned(), 2, "TLS needs a certificate"),
    ] {
        let (ended, told) = check(at, &config).await;
        assert_eq!(ended, Some(code), "{config}{told}");
        assert!(told.contains(said), "{config}{told}");
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_is_let_go_after_the_time_for_a_handshake() {
    let it = Secured::start("handshake_timeout = \"300ms\"\nmax_handshakes = 1\n").await;
    let to = it.server.https.expect("TLS is spoken");
    let connect = async || tokio::net::TcpStream::connect(to).await.expect("accepted");
    let mut silent = connect().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut one_more = connect().await;
    let mut byte = [0];
    assert_eq!(within(one_more.read(&mut byte)).await.expect("closed"), 0);
    assert_eq!(within(silent.read(&mut byte)).await.expect("closed"), 0);
    let said = it.curl(&[&it.url("/metrics")]).await;
    for counted in [
        "handshakes_total{outcome=\"slow\"} 1\n",
        "handshakes_total{outcome=\"refused\"} 1\n",
        "handshakes_total{outcome=\"done\"} 1\n",
        // Of that one alone.
        "handshake_seconds_count 1\n",
    ] {
        assert!(said.contains(&format!("fanwire_tls_{counted}")), "{said}");
    }
    drop(connect().await);
    let left = "fanwire_tls_handshakes_total{outcome=\"left\"} 1\n";
    within(async { while !it.curl(&[&it.url("/metrics")]).await.contains(left) {} }).await;
}
