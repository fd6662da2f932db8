//! The tool against the bare server, and against servers that lie: every fault must be seen and fail the run.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

const SUBSCRIBERS: usize = 5;

fn load(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fanwire-load")).args(arguments).output().expect("the tool can be run")
}

/// What a server does wrong with one message, the fifth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// One subscriber does not get it.
    Lose,
    /// One subscriber gets it twice.
    Repeat,
    /// One subscriber gets it after the sixth.
    Swap,
    /// One subscriber gets something else besides.
    Invent,
    /// It is refused.
    Refuse,
    /// One subscriber's stream ends.
    HangUp,
    /// None, but each answer to a publish says that the connection ends with it, as Pushpin's do.
    CloseEach,
}

#[derive(Default)]
struct Streams {
    subscribers: Vec<TcpStream>,
    messages: usize,
    held_back: Vec<u8>,
}

/// A server with that one fault, on a port of its own, for as long as the test lives.
fn start(lie: Lie) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let streams = Arc::new(Mutex::new(Streams::default()));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let streams = Arc::clone(&streams);
            thread::spawn(move || serve(stream, &streams, lie));
        }
    });
    address
}

fn serve(mut stream: TcpStream, streams: &Mutex<Streams>, lie: Lie) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        let subscribes = line.starts_with("GET ");
        while !line.trim_end().is_empty() {
            line.clear();
            reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().ok()?;
            }
        }
        if subscribes {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").ok()?;
            streams.lock().ok()?.subscribers.push(stream);
            return Some(());
        }
        let mut payload = vec![0; length];
        reader.read_exact(&mut payload).ok()?;
        let mut streams = streams.lock().ok()?;
        streams.messages += 1;
        if streams.messages == 5 && lie == Lie::Refuse {
            stream.write_all(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n").ok()?;
            continue;
        }
        let close = if lie == Lie::CloseEach { "Connection: close\r\n" } else { "" };
        let answer = format!("HTTP/1.1 200 OK\r\n{close}Content-Length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).ok()?;
        streams.deliver(&[b"data: ", payload.as_slice(), b"\n\n"].concat(), lie);
        if lie == Lie::CloseEach {
            return Some(());
        }
    }
}

impl Streams {
    fn deliver(&mut self, frame: &[u8], lie: Lie) {
        let fifth = self.messages == 5;
        for (number, subscriber) in self.subscribers.iter().enumerate() {
            let send = |bytes: &[u8]| _ = (&*subscriber).write_all(bytes);
            match lie {
                _ if number != 0 => send(frame),
                Lie::Lose if fifth => {}
                Lie::Repeat if fifth => send(&[frame, frame].concat()),
                Lie::Swap if fifth => self.held_back = frame.to_vec(),
                Lie::Swap if self.messages == 6 => send(&[frame, &self.held_back].concat()),
                Lie::Invent if fifth => send(&[frame, b"data: something else\n\n"].concat()),
                Lie::HangUp if fifth => _ = subscriber.shutdown(std::net::Shutdown::Both),
                _ => send(frame),
            }
        }
    }
}

#[test]
fn every_fault_of_a_server_is_counted_and_fails_the_run() {
    let subscribers = SUBSCRIBERS.to_string();
    for (lie, fault) in [
        (Lie::None, None),
        (Lie::CloseEach, None),
        (Lie::Lose, Some("\"lost\":1,")),
        (Lie::Repeat, Some("\"duplicate\":1,")),
        (Lie::Swap, Some("\"reordered\":1}")),
        (Lie::Invent, Some("\"foreign\":1,")),
        (Lie::Refuse, Some("\"refused\":1,")),
        (Lie::HangUp, Some("\"broken\":1,")),
    ] {
        let target = format!("sse@{}/{}", start(lie), std::process::id());
        // At a rate, so that a message that never completes does not stop the next; the tool gives up by itself.
        let output = load(&[
            "open-loop",
            "--json",
            "--target",
            &target,
            "--server-cpus",
            "none",
            "--client-cpus",
            "none",
            "--subscribers",
            &subscribers,
            "--messages",
            "20",
            "--warm-up",
            "2",
            "--rate",
            "500",
            "--time-limit",
            "3",
        ]);
        let report = String::from_utf8_lossy(&output.stdout);
        match fault {
            None => assert_eq!(output.status.code(), Some(0), "{lie:?}: {report}"),
            Some(fault) => {
                assert_eq!(output.status.code(), Some(1), "{lie:?}: {report}");
                assert!(report.contains(fault), "{lie:?} without {fault}: {report}");
            }
        }
    }
}

#[test]
fn the_bare_server_loses_nothing_over_one_process_or_several() {
    for processes in ["1", "3"] {
        let output = load(&[
            "fanout",
            "--target",
            "floor",
            "--channels",
            "7",
            "--subscribers",
            "30",
            "--publishers",
            "3",
            "--window",
            "9",
            "--messages",
            "500",
            "--processes",
            processes,
            "--time-limit",
            "20",
        ]);
        let report = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{processes} processes: {report}");
        assert!(report.contains("15000"), "all of 500 x 30 deliveries: {report}");
    }
}

/// 16 at once, in one write of each publisher, and the rest at the end.
#[test]
fn bursts_lose_nothing_and_end() {
    let shape = ["--subscribers", "30", "--publishers", "3", "--window", "16", "--messages", "100"];
    let output =
        load(&[&["fanout", "--target", "floor", "--at-once", "--time-limit", "20"], &shape[..]].concat());
    let report = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert!(report.contains("16 at once") && report.contains("3000"), "all of 100 x 30 deliveries: {report}");
}

#[test]
fn a_server_that_cannot_be_started_is_an_error_of_the_run() {
    let output = load(&["fanout", "--target", "sse=/nonexistent {address}", "--subscribers", "1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ended at start"));
}

/// The same as plain: subscribers of the bare server and their messages, each sealed for itself.
#[test]
fn the_bare_server_inside_of_tls_loses_nothing_over_one_process_or_several() {
    for processes in ["1", "2"] {
        let shape = ["--channels", "3", "--subscribers", "10", "--publishers", "2", "--window", "4"];
        let rest = ["--messages", "200", "--processes", processes, "--time-limit", "20"];
        let output = load(&[&["fanout", "--target", "tls+floor"], &shape[..], &rest].concat());
        let report = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{processes} processes: {report}");
        assert!(report.contains("2000"), "all of 200 x 10 deliveries: {report}");
    }
}

/// With authorities to believe, a server of another one gets nobody.
#[test]
fn a_server_is_verified_by_the_authorities_that_are_given() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let (cert, key) =
            (folder.path().join(format!("{name}.crt")), folder.path().join(format!("{name}.key")));
        std::fs::write(&cert, made.cert.pem()).expect("written");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        [cert, key].map(|path| path.to_str().expect("UTF-8").to_owned())
    };
    let ([own, key], [other, _]) = (write("own"), write("other"));
    let tool = env!("CARGO_BIN_EXE_fanwire-load");
    let target = format!("tls+floor={tool} floor {{address}} --cert {own} --key {key}");
    for (ca, code, told) in [(&own, 0, "none"), (&other, 1, "TLS: invalid peer certificate")] {
        let shape = ["--subscribers", "4", "--messages", "5", "--warm-up", "0", "--time-limit", "5"];
        let output = load(&[&["fanout", "--target", &target, "--ca", ca], &shape[..]].concat());
        let report = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{report}");
        assert!(report.contains(told), "{report}");
    }
}

/// The bare server gives no tickets, so that nobody resumes.
#[test]
fn a_storm_of_handshakes_is_counted_and_disturbs_no_delivery() {
    let shape =
        ["--connections", "40", "--in-flight-connects", "8", "--subscribers", "3", "--calm-messages", "10"];
    let output = load(
        &[&["handshakes", "--target", "tls+floor", "--json", "--time-limit", "30"], &shape[..]].concat(),
    );
    let report = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{report}");
    let json = report.lines().last().unwrap_or_default();
    for figure in
        ["\"full_refused\":0.0", "\"full_timeouts\":0.0", "\"resumed_timeouts\":0.0", "\"resumed\":0.0"]
    {
        assert!(json.contains(figure), "{figure}: {json}");
    }
    let output = load(&["handshakes", "--target", "floor"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("speaks TLS"));
}
