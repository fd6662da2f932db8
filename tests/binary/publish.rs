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
async fn an_empty_name_publishes_nothing_anywhere() {
    let server = Process::start(&[]).await;
    let done = publish(&server, &["", r#"{"channel":"other","data":1}"#], b"").await;
    assert!(done.code != Some(0) && done.err.contains("channel"), "{done:?}");
    assert_eq!(get(server.http, "/v1/channels/other").await.status, 404);
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
    let anybody = "[[anonymous.allow]]\nactions = [\"publish\"]\nchannels = [\"open\"]";
    let hash = fanwire::auth::KeyHash::of(b"known");
    let rights = format!("{anybody}\n[[keys]]\nid = \"known\"\nhash = \"{hash}\"");
    std::fs::write(file.path(), rights).expect("written");
    let guarded = Process::start(&["--config", file.path().to_str().expect("UTF-8")]).await;
    let cases: [(&Process, &[&str], i32, &str); 7] = [
        (&server, &["a/*/b", "x"], 1, "fanwire: 400 invalid_channel: "),
        (&server, &["a", "x", "--event", "two\nlines"], 1, "fanwire: 400 "),
        (&server, &["a", "x", "--key", "two\nlines"], 2, "fanwire: `--key` holds what no header can"),
        (&server, &["a", "x", "--url", "ftp://127.0.0.1"], 2, "fanwire: `ftp://127.0.0.1` is no address: "),
        (&guarded, &["closed", "x"], 4, "fanwire: 401 credentials_required: "),
        (&guarded, &["closed", "x", "--token", "known"], 5, "fanwire: 403 forbidden: "),
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

#[tokio::test]
async fn each_line_is_a_message_and_one_that_is_too_long_harms_only_itself() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "[broker]\nmax_message_bytes = 10").expect("written");
    let server = Process::start(&["--config", file.path().to_str().expect("UTF-8")]).await;
    let input = b"1\n\r\n{\"n\":2}\r\nlonger than ten bytes\n\xff";
    let done = publish(&server, &["a", "--lines"], input).await;
    assert_eq!(done.code, Some(1), "{}", done.err);
    let told: Vec<_> = done.err.lines().collect();
    assert!(told[0].starts_with("fanwire: line 4 is left out: 413 "), "{told:?}");
    assert_eq!(told[1..], ["fanwire: not all lines were published"]);
    assert_eq!(done.out.lines().filter(|line| line.starts_with(r#"{"channel":"a","id":""#)).count(), 4);
    let history = get(server.http, "/v1/history/a").await.json();
    let messages = history["messages"].as_array().expect("a list");
    let payloads: Vec<_> = messages
        .iter()
        .map(|message| [&message["data"], &message["text"], &message["base64"]].map(ToString::to_string))
        .collect();
    let payloads: Vec<_> =
        payloads.iter().map(|forms| forms.iter().find(|form| *form != "null").expect("one")).collect();
    assert_eq!(payloads, ["1", r#""""#, r#"{"n":2}"#, r#""/w==""#]);
}

#[tokio::test]
async fn lines_that_cannot_be_published_end_it_with_their_number() {
    let server = Process::start(&[]).await;
    let done = publish(&server, &["a/*/b", "--lines"], b"x\ny\n").await;
    assert_eq!((done.code, done.out.as_str()), (Some(1), ""));
    let told: Vec<_> = done.err.lines().collect();
    assert_eq!(told[0], "fanwire: stopped at line 1");
    assert!(told.len() == 2 && told[1].starts_with("fanwire: 400 invalid_channel: "), "{told:?}");
    for wrong in [&["a", "x", "--lines"][..], &["a", "--lines", "--key", "k"], &["a"]] {
        assert_eq!(publish(&server, wrong, b"").await.code, Some(2), "{wrong:?}");
    }
}

/// Reads a request, passes over its body, and answers or hangs up.
async fn answer(listener: &TcpListener, answer: &str) -> String {
    let (mut stream, _) = listener.accept().await.expect("it connects");
    let mut request = vec![0; 1024];
    let read = stream.read(&mut request).await.expect("a request");
    request.truncate(read);
    stream.write_all(answer.as_bytes()).await.expect("written");
    String::from_utf8(request).expect("UTF-8")
}

#[tokio::test]
async fn a_message_is_tried_again_with_one_key_until_it_is_taken_or_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = listener.local_addr().expect("an address").to_string();
    let busy = "HTTP/1.1 429 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    let taken = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    let arguments = ["pub", "a", "x", "--retry", "2", "--url", &url];
    let asking = run_with_input(&arguments, &[], b"");
    let answering = async {
        let mut asked = vec![answer(&listener, busy).await];
        asked.push(answer(&listener, "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").await);
        asked.push(answer(&listener, taken).await);
        asked
    };
    let (done, asked) = tokio::join!(asking, answering);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "{}\n"), "{}", done.err);
    assert!(done.err.contains("429 too_many_requests: ; trying again in 1.0 s"), "{}", done.err);
    let key = |request: &String| {
        let line = request.lines().find_map(|line| line.strip_prefix("idempotency-key: "));
        line.expect("a key").to_owned()
    };
    assert!(
        key(&asked[0]).len() == 32 && asked.iter().all(|request| key(request) == key(&asked[0])),
        "{asked:?}"
    );

    for (last, code, tries) in [(busy, 6, 2), ("HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n", 1, 1)] {
        let arguments = ["pub", "a", "x", "--retry", "1", "--key", "mine", "--url", &url];
        let asking = run_with_input(&arguments, &[], b"");
        let answering = async {
            for _ in 0..tries {
                assert_eq!(key(&answer(&listener, last).await), "mine");
            }
        };
        let (done, ()) = tokio::join!(asking, answering);
        assert_eq!(done.code, Some(code), "{}", done.err);
    }
    drop(listener);
    let done = run_with_input(&arguments, &[], b"").await;
    assert_eq!((done.code, done.err.lines().count()), (Some(3), 3), "{}", done.err);
}
