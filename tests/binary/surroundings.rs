//! Memory, standard streams and disks at their end: what is refused is refused in the protocol's terms, and the server
//! goes on.

use std::net::SocketAddr;
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::http::{get, post, request};
use crate::support::mqtt::Bare;
use crate::support::process::{Process, command};
use crate::support::within;

#[tokio::test]
async fn in_little_memory_what_is_kept_is_bounded_and_the_rest_is_refused() {
    // A third of it may be retained; the rest is for the log, for what is on its way, and for code that is not optimised.
    let server = Process::start_after("ulimit -v 900000").await;
    let body = bytes::Bytes::from(vec![b'x'; 4_000_000]);
    let mut full = None;
    for n in 0..80 {
        let path = format!("/v1/retained/a{n}");
        let answer =
            request(server.http, "PUT", &path, &[("content-type", "text/plain")], body.clone()).await;
        if answer.status >= 300 {
            full = Some(answer);
            break;
        }
    }
    let full = full.expect("256 MiB are full");
    assert_eq!((full.status, full.code()), (503, "retained_full".to_owned()));

    // The same by MQTT 5.0: QoS 1, retained, packet 1, no properties. The answer is about packet 1: 0x97.
    let mut device = Bare::connect(server.mqtt).await;
    device.send(b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00").await;
    let length = device.receive(2).await[1];
    assert_eq!(device.receive(length.into()).await[1], 0);
    let mut publish = b"\x33\x87\x92\xf4\x01\x00\x02zz\x00\x01\x00".to_vec();
    publish.extend_from_slice(&body);
    device.send(&publish).await;
    assert_eq!(device.receive(2).await[0], 0x40);
    assert_eq!(device.receive(3).await, [0, 1, 0x97]);

    // The log keeps what it has room for, and the newest.
    for n in 0..40 {
        assert_eq!(post(server.http, &format!("/v1/publish/b{n}"), body.clone()).await.status, 200);
    }
    assert_eq!(get(server.http, "/healthz").await.status, 200);
    let history = get(server.http, "/v1/history/b39").await;
    assert_eq!(history.status, 200, "{history:?}");
    let forgotten = get(server.http, "/v1/history/b0").await;
    assert!(!forgotten.text().contains("xxxx"), "the log is larger than it may be");
}

/// Nothing that the log is written to may stop the server: not a reader that is gone, not a disk that is full.
#[tokio::test]
async fn without_a_place_for_its_log_it_serves_and_stops_as_ever() {
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux"));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    for (what, stderr, loses) in
        [("full", full(), true), ("nobody reads", Stdio::from(writer), true), ("null", Stdio::null(), false)]
    {
        let mut command = command();
        command.args(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]);
        let server = Process::started_with_stderr(command, stderr).await;
        let lost = works(server.http, server.mqtt).await;
        assert_eq!(lost > 0, loses, "{what}: {lost} lines");
        stops(server).await;
    }
    // Neither of the standard streams is there at all: what is opened next must not be taken for one.
    let server = Process::start_after("exec 2>&- 0<&-").await;
    works(server.http, server.mqtt).await;
    stops(server).await;
}

#[tokio::test]
async fn without_anybody_who_hears_where_it_listens_it_serves() {
    for redirect in ["1>&-", "1>/dev/full", "1>&- 2>&- 0<&-", "1>/dev/full 2>/dev/full"] {
        let (http, mqtt) = (free_address(), free_address());
        let script = format!("exec \"$0\" --http {http} --mqtt {mqtt} {redirect}");
        let mut shell = tokio::process::Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_fanwire")]).kill_on_drop(true);
        let mut child = shell.stderr(Stdio::null()).spawn().expect("a shell");
        within(async {
            while tokio::net::TcpStream::connect(mqtt).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await;
        works(http, mqtt).await;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(id.expect("it runs"), Signal::TERM).expect("it can be signalled");
        let status = within(child.wait()).await.expect("it ends");
        assert_eq!(status.code(), Some(0), "{redirect}");
    }
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound")
}

/// Clients come and go, each with a line in the log; how many lines were lost.
async fn works(http: SocketAddr, mqtt: SocketAddr) -> u64 {
    for _ in 0..20 {
        drop(Bare::shake_hands(mqtt, "device").await);
        assert_eq!(post(http, "/v1/publish/a", "x").await.status, 200);
    }
    let metrics = get(http, "/metrics").await;
    let lost = metrics.text().lines().find_map(|line| line.strip_prefix("fanwire_lost_log_lines_total "));
    lost.and_then(|lost| lost.parse().ok()).expect("counted")
}

async fn stops(mut server: Process) {
    server.signal(Signal::TERM);
    assert_eq!(server.exit().await.code(), Some(0));
}
