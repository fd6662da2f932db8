//! What a service manager hears of the server (`sd_notify(3)`).

use rustix::process::Signal;
use tokio::net::UnixDatagram;

use crate::support::process::{Process, command};
use crate::support::within;

/// The next message that is no sign of life.
async fn heard(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    loop {
        let length = within(socket.recv(&mut bytes)).await.expect("a message");
        let text = String::from_utf8(bytes[..length].to_vec()).expect("text");
        if text != "WATCHDOG=1\n" {
            return text;
        }
    }
}

#[tokio::test]
async fn a_service_manager_hears_of_start_reload_and_stop_and_that_the_server_lives() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let mut command = command();
    command.args(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "40000");
    let mut server = Process::started(command).await;

    let ready = heard(&socket).await;
    let listening = format!("listening http={} mqtt={}", server.http, server.mqtt);
    assert_eq!(ready, format!("READY=1\nSTATUS={listening}\n"));

    server.signal(Signal::HUP);
    let reloading = heard(&socket).await;
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("when it began");
    assert!(since.trim_end().parse::<u64>().is_ok(), "{reloading}");
    assert_eq!(heard(&socket).await, "READY=1\n");

    // It says that it lives until it is told to stop.
    let mut bytes = [0; 64];
    for _ in 0..3 {
        let length = within(socket.recv(&mut bytes)).await.expect("a message");
        assert_eq!(&bytes[..length], b"WATCHDOG=1\n");
    }
    server.signal(Signal::TERM);
    let stopping = heard(&socket).await;
    assert!(stopping.starts_with("STOPPING=1\nSTATUS="), "{stopping}");
    assert_eq!(server.exit().await.code(), Some(0));
}
