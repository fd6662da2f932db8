//! `fanwire pub` against the real server.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::http::get;
use crate::support::process::{Ended, Process, run_with_input};

async fn publish(server: &Process, arguments: &[&str], input: &[u8]) -> Ended {
    let url = format!("http://{}", server.http);
    run_with_input(&[&["pub"], arguments].concat(), &[("FANWIRE_URL", &url)], input).await
}

#[tokio::test]
async fn a_message_is_published_with_all_that_was_asked_for() {
    let server = Process::start(&[]).await;
    let done = publish(
        &server,
        &[
            "chat/room 1",
            r#"{"n":1}"#,
            "--content-type",
            "application/json",
            "--event",
            "e",
            "--retain",
            "--ttl",
            "60",
        ],
        b"",
    )
    .await;
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
    assert!(
        done.out.starts_with(r#"{"channel":"chat/room 1","id":""#) && done.out.ends_with("}\n"),
        "{}",
        done.out
    );
    let answer = get(server.http, "/v1/retained/chat/room%201").await;
    let kept = answer.text();
    assert!(kept.contains(r#""data":{"n":1},"event":"e","content_type":"application/json""#), "{kept}");
}

#[tokio::test]
async fn standard_input_is_taken_byte_by_byte() {
    let server = Process::start(&[]).await;
    let bytes = b"\x00\xffbinary\r\n";
    let done = publish(&server, &["a", "-", "--retain"], bytes).await;
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(get(server.http, "/v1/retained/a?format=raw").await.body, &bytes[..]);
}

#[tokio::test]
async fn a_key_makes_a_repeat_a_repeat() {
    let server = Process::start(&[]).await;
    let first = publish(&server, &["a", "-1", "--key", "k"], b"").await.out;
    let second = publish(&server, &["a", "-1", "--key", "k"], b"").await.out;
    assert!(
        first.contains(r#""duplicate":false"#) && second.contains(r#""duplicate":true"#),
        "{first}{second}"
    );
    let other = publish(&server, &["a", "-2", "--key", "k"], b"").await;
    assert_eq!(other.code, Some(1));
    assert!(other.err.starts_with("fanwire: 409 idempotency_mismatch: "), "{}", other.err);
}

#[tokio::test]
async fn each_refusal_has_a_code_of_its_own_and_says_why() {
    let server = Process::start(&[]).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let rights = "[[anonymous.allow]]\nactions = [\"publish\"]\nchannels = [\"open\"]";
    std::fs::write(file.path(), rights).expect("written");
    let guarded = Process::start(&["--config", file.path().to_str().expect("UTF-8")]).await;
    let cases: [(&Process, &[&str], i32, &str); 6] = [
        (&server, &["a/*/b", "x"], 1, "fanwire: 400 invalid_channel: "),
        (&server, &["a", "x", "--event", "two\nlines"], 1, "fanwire: 400 "),
        (&server, &["a", "x", "--key", "two\nlines"], 2, "fanwire: `--key` holds what no header can"),
        (&server, &["a", "x", "--url", "ftp://127.0.0.1"], 2, "fanwire: `ftp://127.0.0.1` is no address: "),
        (&guarded, &["closed", "x"], 5, "fanwire: 403 forbidden: "),
        (&guarded, &["open", "x", "--token", "who"], 4, "fanwire: 401 invalid_credentials: "),
    ];
    for (server, arguments, code, said) in cases {
        let done = publish(server, arguments, b"").await;
        assert_eq!((done.code, done.out.as_str()), (Some(code), ""), "{arguments:?} {}", done.err);
        assert!(done.err.starts_with(said) && done.err.ends_with('\n'), "{}", done.err);
        assert_eq!(done.err.lines().count(), 1, "{}", done.err);
    }
    assert_eq!(publish(&guarded, &["open", "x"], b"").await.code, Some(0));
}

#[tokio::test]
async fn nobody_there_and_somebody_else_there_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let arguments = ["pub", "a", "x", "--url", &address];
    let asking = run_with_input(&arguments, &[], b"");
    let answering = async {
        let (mut stream, _) = listener.accept().await.expect("it connects");
        let _ = stream.read(&mut [0; 1024]).await;
        stream.write_all(b"220 mail.example ESMTP\r\n").await.expect("written");
        // It is asked whether it would rather speak TLS.
        let (mut stream, _) = listener.accept().await.expect("it connects");
        stream.write_all(b"220 mail.example ESMTP\r\n").await.expect("written");
    };
    let (foreign, ()) = tokio::join!(asking, answering);
    assert_eq!(foreign.code, Some(1), "{}", foreign.err);
    assert!(foreign.err.contains("does not answer as Fanwire does: not HTTP"), "{}", foreign.err);
    drop(listener);
    let nobody = run_with_input(&arguments, &[], b"").await;
    assert_eq!(nobody.code, Some(3));
    assert!(nobody.err.starts_with(&format!("fanwire: cannot reach http://{address}: ")), "{}", nobody.err);
}
