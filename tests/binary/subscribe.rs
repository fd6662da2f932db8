//! `fanwire sub` against the real server, and against ones that misbehave.

use std::net::SocketAddr;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStderr, ChildStdout};

use crate::support::http::post_json;
use crate::support::process::{Process, command, run_with_input};
use crate::support::within;

/// A `fanwire sub` that runs.
pub(crate) struct Sub {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
}

impl Sub {
    fn start(address: SocketAddr, arguments: &[&str]) -> Sub {
        Sub::start_at(&address.to_string(), arguments)
    }

    pub(crate) fn start_at(url: &str, arguments: &[&str]) -> Sub {
        let mut command = command();
        command.arg("sub").args(arguments).args(["--url", url]);
        let mut child = command.spawn().expect("the binary runs");
        let out = BufReader::new(child.stdout.take().expect("piped")).lines();
        let err = BufReader::new(child.stderr.take().expect("piped")).lines();
        Sub { child, out, err }
    }

    pub(crate) async fn line(&mut self) -> String {
        within(self.out.next_line()).await.expect("UTF-8").expect("a line")
    }

    /// The next line on standard error that holds `what`.
    pub(crate) async fn told(&mut self, what: &str) -> String {
        loop {
            let line = within(self.err.next_line()).await.expect("UTF-8").expect("a line");
            assert!(line.starts_with("fanwire: "), "{line}");
            if line.contains(what) {
                return line;
            }
        }
    }

    async fn code(mut self) -> Option<i32> {
        within(self.child.wait()).await.expect("it can be waited for").code()
    }
}

/// Publishes until somebody receives it: a `sub` that was just started may not listen yet.
pub(crate) async fn publish(server: &Process, target: &str, payload: &str) {
    within(async {
        while post_json(server.http, target, payload.to_owned()).await.json()["receivers"] == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn each_format_shows_the_message_as_it_promises_and_a_count_ends_it() {
    let server = Process::start(&[]).await;
    let payload = r#"{"n":12345678901234567890, "x":1e400}"#;
    for (arguments, expected) in [
        (&["a/b"][..], payload.to_owned()),
        (&["a/*", "--format", "channel"], format!("a/b\t{payload}")),
        (&["a/b", "c", "--format", "raw"], payload.to_owned()),
    ] {
        let mut sub = Sub::start(server.http, &[arguments, &["--count", "2"]].concat());
        publish(&server, "/v1/publish/a/b", payload).await;
        publish(&server, "/v1/publish/a/b", payload).await;
        assert_eq!((sub.line().await, sub.line().await), (expected.clone(), expected));
        assert_eq!(sub.code().await, Some(0));
    }
    let mut sub = Sub::start(server.http, &["a/*", "c", "--count", "1"]);
    publish(&server, "/v1/publish/a/b?event=e", payload).await;
    let line = sub.line().await;
    assert!(line.starts_with(r#"{"channel":"a/b","id":""#), "{line}");
    assert!(line.contains(&format!(r#""data":{payload},"event":"e""#)), "{line}");
}

#[tokio::test]
async fn it_begins_after_an_id_and_leaves_retained_messages_out() {
    let server = Process::start(&[]).await;
    let mut ids = Vec::new();
    for n in 0..3 {
        let receipt = post_json(server.http, "/v1/publish/a?retain=true", n.to_string()).await.json();
        ids.push(receipt["id"].as_str().expect("an id").to_owned());
    }
    for (arguments, expected) in [
        (&["a", "--last-event-id", &ids[0]][..], &["1", "2"][..]),
        (&["a", "--last-event-id", "earliest"], &["0", "1", "2"]),
        (&["a"], &["2"]),
    ] {
        let mut sub = Sub::start(server.http, arguments);
        for line in expected {
            assert_eq!(sub.line().await, *line, "{arguments:?}");
        }
    }
    post_json(server.http, "/v1/publish/b?retain=true", "0").await;
    let mut sub = Sub::start(server.http, &["b", "--no-retained"]);
    publish(&server, "/v1/publish/b", "\"live\"").await;
    assert_eq!(sub.line().await, "\"live\"");
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_is_followed_and_its_gap_told() {
    let mut server = Process::start(&[]).await;
    let mut sub = Sub::start(server.http, &["a"]);
    publish(&server, "/v1/publish/a", "1").await;
    assert_eq!(sub.line().await, "1");
    for round in 0..3 {
        server.signal(Signal::KILL);
        server.exit().await;
        sub.told("resuming from ").await;
        let address = server.http;
        server = Process::start_at(address).await;
        sub.told("connected again").await;
        sub.told("gap on a: what followed ").await;
        publish(&server, "/v1/publish/a", &round.to_string()).await;
        assert_eq!(sub.line().await, round.to_string());
    }
}

#[tokio::test]
async fn a_server_that_stops_in_good_order_says_when_to_come_back() {
    let mut server = Process::start(&["--config", "tests/binary/short_window.toml"]).await;
    let mut sub = Sub::start(server.http, &["a"]);
    publish(&server, "/v1/publish/a", "1").await;
    assert_eq!(sub.line().await, "1");
    server.signal(Signal::TERM);
    let told = sub.told("the server ended the stream; resuming from ").await;
    let wait: f64 = told
        .rsplit_once(" in ")
        .and_then(|(_, rest)| rest.strip_suffix(" s"))
        .expect("a time")
        .parse()
        .expect("seconds");
    assert!((0.5..=2.0).contains(&wait), "{told}");
    assert!(server.exit().await.success());
    let server = Process::start_at(server.http).await;
    publish(&server, "/v1/publish/a", "2").await;
    assert_eq!(sub.line().await, "2");
}

/// Takes one connection and reads its request head.
async fn accept(listener: &TcpListener) -> (TcpStream, String) {
    let (mut stream, _) = within(listener.accept()).await.expect("it connects");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        within(stream.read_exact(&mut byte)).await.expect("a whole head");
        head.extend_from_slice(&byte);
    }
    (stream, String::from_utf8(head).expect("UTF-8"))
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n";

fn event(n: u32) -> String {
    format!("id: k-{n}\ndata: {{\"channel\":\"a\",\"data\":{n}}}\n\n")
}

#[tokio::test]
async fn streams_that_stall_or_break_are_resumed_from_the_last_whole_event() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let mut sub = Sub::start(address, &["a", "--idle-timeout", "1"]);
    let chunked = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    let plain = format!("{HEAD}\r\n");
    let first = event(1);
    let steps: [(&str, String, &str); 6] = [
        ("stalls", format!("{plain}:\n\n{first}"), "nothing came for 1 s; resuming from k-1 "),
        // The id of an event that is cut off is not taken: it would skip the event.
        (
            "is cut in an event",
            format!("{plain}{}id: k-9\ndata: {{\"cha", event(2)),
            "ended the stream; resuming from k-2 ",
        ),
        ("is no JSON", format!("{plain}{}id: k-9\ndata: {{\"cha\n\n", event(3)), "an event is no message "),
        ("is no chunk", format!("{chunked}{:x}\r\n{first}\r\nzz\r\n", first.len()), "connection lost "),
        (
            "is a page",
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n".into(),
            "it sent text/html",
        ),
        ("is busy", "HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n".into(), " in 1.0 s"),
    ];
    let mut asked = Vec::new();
    for (what, answer, told) in steps {
        let (mut stream, head) = accept(&listener).await;
        asked.push(head);
        stream.write_all(answer.as_bytes()).await.expect("written");
        if what != "stalls" {
            stream.shutdown().await.expect("ended");
        }
        sub.told(told).await;
    }
    let (mut stream, head) = accept(&listener).await;
    asked.push(head);
    let problem = r#"{"type":"about:blank","title":"Unauthorized","status":401,"code":"invalid_credentials","detail":"expired"}"#;
    let answer = format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n\r\n{problem}", problem.len());
    stream.write_all(answer.as_bytes()).await.expect("written");
    sub.told("401 invalid_credentials: expired").await;

    for n in [1, 2, 3, 1] {
        assert_eq!(sub.line().await, n.to_string());
    }
    assert_eq!(sub.code().await, Some(4));
    let ids: Vec<_> =
        asked.iter().map(|head| head.lines().find_map(|line| line.strip_prefix("last-event-id: "))).collect();
    assert_eq!(ids, [None, Some("k-1"), Some("k-2"), Some("k-3"), Some("k-1"), Some("k-1"), Some("k-1")]);
}

#[tokio::test]
async fn a_stream_cut_before_its_first_event_is_resumed_from_where_it_began() {
    let mut server = Process::start(&[]).await;
    post_json(server.http, "/v1/publish/other", "1").await;
    let mut sub = Sub::start(server.http, &["a"]);
    within(async {
        while !crate::support::http::get(server.http, "/metrics")
            .await
            .text()
            .contains("fanwire_sse_streams 1")
        {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    server.signal(Signal::KILL);
    server.exit().await;
    let told = sub.told("resuming from ").await;
    assert!(told.contains("connection lost "), "a server that is killed did not end its stream: {told}");
}

#[tokio::test]
async fn what_cannot_begin_ends_at_once_with_a_code_of_its_own() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let anybody = "[[anonymous.allow]]\nactions = [\"subscribe\"]\nchannels = [\"open\"]";
    let hash = fanwire::auth::KeyHash::of(b"known");
    let rights = format!("{anybody}\n[[keys]]\nid = \"known\"\nhash = \"{hash}\"");
    std::fs::write(file.path(), rights).expect("written");
    let server = Process::start(&["--config", file.path().to_str().expect("UTF-8")]).await;
    let url = server.http.to_string();
    let cases: [(&[&str], i32, &str); 7] = [
        (&["a/**/b"], 1, "fanwire: 400 invalid_filter: "),
        (
            &["closed"],
            4,
            "fanwire: 401 credentials_required: no right to subscribe to \"closed\" without credentials",
        ),
        (&["closed", "--token", "known"], 5, "fanwire: 403 forbidden: no right to subscribe to \"closed\""),
        (&["open", "--token", "who"], 4, "fanwire: 401 invalid_credentials: "),
        (&["open", "--user", "who"], 2, "fanwire: a user is given as NAME:PASSWORD"),
        (&["open", "--last-event-id", "two\nlines"], 2, "fanwire: `two\nlines` is no id"),
        (&["open", "--count", "0"], 2, "error: invalid value '0' for '--count <N>'"),
    ];
    for (arguments, code, said) in cases {
        let done = run_with_input(&[&["sub"], arguments, &["--url", &url]].concat(), &[], b"").await;
        assert_eq!((done.code, done.out.as_str()), (Some(code), ""), "{arguments:?} {}", done.err);
        assert!(done.err.starts_with(said), "{}", done.err);
    }
    drop(server);
    let nobody = run_with_input(&["sub", "a"], &[("FANWIRE_URL", &url)], b"").await;
    assert_eq!(nobody.code, Some(3), "{}", nobody.err);
}

#[tokio::test]
async fn a_reader_that_had_enough_ends_it_quietly() {
    let server = Process::start(&[]).await;
    let Sub { mut child, out, mut err } = Sub::start(server.http, &["a"]);
    drop(out);
    publish(&server, "/v1/publish/a", "1").await;
    assert_eq!(within(child.wait()).await.expect("it ends").code(), Some(0));
    let said = within(err.next_line()).await.expect("UTF-8").expect("that it listens");
    assert!(said.starts_with("fanwire: listening to a at "), "{said}");
    assert_eq!(within(err.next_line()).await.expect("UTF-8"), None);
}
