//! `fanwire pub` and `fanwire sub` through a proxy that ends TLS.

use crate::subscribe::{Sub, publish};
use crate::support::process::{Process, run_with_input};
use crate::support::tls::{Authority, TlsProxy};

#[tokio::test]
async fn messages_go_in_and_out_through_tls_and_a_cut_stream_is_resumed() {
    let server = Process::start(&[]).await;
    let authority = Authority::new();
    let proxy = TlsProxy::start(authority.issue(&["localhost"]), server.http).await;
    let url = format!("https://localhost:{}/", proxy.address.port());
    let ca = ["--ca-file", authority.file()];
    let mut sub = Sub::start_at(&url, &[&["a"], &ca[..]].concat());
    publish(&server, "/v1/publish/a", "0").await;
    assert_eq!(sub.line().await, "0");
    for n in 1..4 {
        proxy.cut();
        let told = sub.told("resuming from ").await;
        assert!(told.starts_with("fanwire: connection lost ("), "{told}");
        let line = n.to_string();
        let done =
            run_with_input(&[&["pub", "a", &line], &ca[..]].concat(), &[("FANWIRE_URL", &url)], b"").await;
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
        assert_eq!(sub.line().await, line);
    }
}

#[tokio::test]
async fn an_address_can_be_certified_and_the_environment_can_name_the_authority() {
    let server = Process::start(&[]).await;
    let authority = Authority::new();
    let proxy = TlsProxy::start(authority.issue(&["127.0.0.1"]), server.http).await;
    let url = format!("https://{}", proxy.address);
    // The second is where OpenSSL, and so the system, looks.
    for variable in ["FANWIRE_CA_FILE", "SSL_CERT_FILE"] {
        let environment = [("FANWIRE_URL", url.as_str()), (variable, authority.file())];
        let done = run_with_input(&["pub", "a", "x"], &environment, b"").await;
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{variable}");
    }
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_that_nobody_vouches_for_unless_that_is_asked_for() {
    let server = Process::start(&[]).await;
    let (authority, other) = (Authority::new(), Authority::new());
    let expired = |params: &mut rcgen::CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 3, 4);
    };
    let future = |params: &mut rcgen::CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2901, 2, 3);
        params.not_after = rcgen::date_time_ymd(2902, 1, 1);
    };
    let names = ["localhost"];
    let cases = [
        (
            other.issue(&names),
            "nobody who is trusted here vouches for its certificate; --ca-file FILE names ",
        ),
        (
            authority.issue(&["a.example", "*.b.example"]),
            "its certificate is for a.example, *.b.example, not for localhost",
        ),
        (authority.issue_with(&names, expired), "its certificate expired at 2002-03-04T00:00:00Z"),
        (
            authority.issue_with(&names, future),
            "its certificate begins at 2901-02-03T00:00:00Z, and here it is 2",
        ),
        (authority.identity(), "it shows the certificate of an authority (CA:TRUE), not one of a server"),
    ];
    for (identity, why) in cases {
        let proxy = TlsProxy::start(identity, server.http).await;
        let url = format!("https://localhost:{}", proxy.address.port());
        for command in [&["pub", "a", "x"][..], &["sub", "a"]] {
            let arguments = [command, &["--url", &url, "--ca-file", authority.file()]].concat();
            let done = run_with_input(&arguments, &[], b"").await;
            assert_eq!((done.code, done.out.as_str()), (Some(3), ""), "{why}: {}", done.err);
            assert!(done.err.starts_with(&format!("fanwire: cannot reach {url}: {why}")), "{}", done.err);
            assert_eq!(done.err.lines().count(), 1, "{}", done.err);
        }
        assert_eq!(proxy.passed(), 0, "{why}");
        let done = run_with_input(&["pub", "a", "x", "--url", &url, "--insecure"], &[], b"").await;
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{why}");
    }
    let proxy = TlsProxy::start(authority.issue(&names), server.http).await;
    let url = format!("https://localhost:{}", proxy.address.port());
    let done = run_with_input(&["pub", "a", "x", "--url", &url], &[], b"").await;
    assert_eq!(done.code, Some(3), "the system does not know a private authority: {}", done.err);
}

#[tokio::test]
async fn tls_and_plain_http_that_meet_say_so() {
    let server = Process::start(&[]).await;
    let authority = Authority::new();
    let proxy = TlsProxy::start(authority.issue(&["127.0.0.1"]), server.http).await;
    let (tls, plain) = (format!("https://{}", server.http), format!("http://{}", proxy.address));
    let mqtt = format!("https://{}", server.mqtt);
    for (url, code, said) in [
        (&tls, 3, "no TLS is spoken there; plain HTTP is http://"),
        (&mqtt, 3, "it closes the connection instead of a TLS handshake; plain HTTP is http://"),
        (&plain, 1, "TLS is spoken there, and that is https://"),
    ] {
        for command in [&["pub", "a", "x"][..], &["sub", "a"]] {
            let done = run_with_input(&[command, &["--url", url]].concat(), &[], b"").await;
            assert_eq!((done.code, done.out.as_str()), (Some(code), ""), "{}", done.err);
            assert!(done.err.trim_end().ends_with(said), "{}", done.err);
        }
    }
}

#[tokio::test]
async fn a_file_without_certificates_is_a_wrong_argument() {
    let empty = tempfile::NamedTempFile::new().expect("a file");
    let empty = empty.path().to_str().expect("UTF-8");
    for (file, why) in [("/no/such.pem", "No such file"), (empty, "no certificate in PEM form")] {
        let arguments = ["pub", "a", "x", "--url", "https://127.0.0.1", "--ca-file", file];
        let done = run_with_input(&arguments, &[], b"").await;
        assert_eq!(done.code, Some(2), "{}", done.err);
        assert!(done.err.starts_with(&format!("fanwire: {file}: {why}")), "{}", done.err);
    }
}
