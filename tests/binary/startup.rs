use crate::support::http::{get, post_json};
use crate::support::process::{Process, run};
use crate::support::sse::EventStream;

#[tokio::test]
async fn the_startup_line_names_the_real_ports_and_both_are_served() {
    let server = Process::start(&[]).await;
    assert_ne!(server.http.port(), 0);
    let mut stream = EventStream::open(server.http, "/sse/demo").await;
    post_json(server.http, "/v1/publish/demo", r#"{"hello":"world"}"#).await;
    assert_eq!(stream.data().await, r#"{"hello":"world"}"#);
    crate::support::mqtt::Client::connect(server.mqtt, "c").await;
}

#[tokio::test]
async fn a_listener_that_is_off_is_not_in_the_startup_line() {
    let mut command = crate::support::process::command();
    command.args(["--http", "127.0.0.1:0", "--mqtt", "off"]);
    let mut child = command.spawn().expect("the binary runs");
    let stdout = child.stdout.take().expect("piped");
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(stdout);
    crate::support::within(tokio::io::AsyncBufReadExt::read_line(&mut reader, &mut line))
        .await
        .expect("a line");
    assert!(line.starts_with("listening http=127.0.0.1:") && !line.contains("mqtt"), "{line}");
}

#[tokio::test]
async fn where_backends_of_grip_publish_is_in_the_startup_line() {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").expect("a file");
    std::io::Write::write_all(&mut file, b"[gateway.grip]\ncontrol_address = \"127.0.0.1:0\"\n")
        .expect("written");
    let mut command = crate::support::process::command();
    command.args(["--http", "127.0.0.1:0", "--mqtt", "off", "--config"]).arg(file.path());
    let mut child = command.spawn().expect("the binary runs");
    let stdout = child.stdout.take().expect("piped");
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(stdout);
    crate::support::within(tokio::io::AsyncBufReadExt::read_line(&mut reader, &mut line))
        .await
        .expect("a line");
    let address = line.trim_end().split_once(" grip=").expect("it is told").1;
    assert_eq!(get(address.parse().expect("an address"), "/").await.status, 200);
}

#[tokio::test]
async fn without_rights_the_startup_says_so_and_gives_something_to_try() {
    let server = Process::start(&["--log-format", "json"]).await;
    // Its own standard error is this test's; a second one on the same port shows what both say.
    let (code, said) = run(&["--http", &server.http.to_string(), "--mqtt", "off"], &[]).await;
    assert_eq!(code, Some(2));
    assert_eq!(said, format!("fanwire: cannot listen on {} for HTTP: the port is in use\n", server.http));
    assert_eq!(get(server.http, "/healthz").await.status, 200);
}

/// `cargo run` hands what the build script names to the program, which takes `FANWIRE_…` for its configuration.
#[test]
fn nothing_that_the_build_names_looks_like_configuration() {
    let script = include_str!("../../build.rs");
    let named: Vec<_> = script.split("rustc-env=").skip(1).collect();
    assert!(!named.is_empty());
    assert!(named.iter().all(|name| !name.starts_with("FANWIRE_")), "{named:?}");
}

#[tokio::test]
async fn on_one_core_there_is_one_thread() {
    let threads = |id: u32| std::fs::read_dir(format!("/proc/{id}/task")).map(Iterator::count).unwrap_or(0);
    let server = Process::start_on_one_core().await;
    assert_eq!(threads(server.id()), 1);
    let answer = get(server.http, "/healthz").await;
    assert_eq!(answer.status, 200);
    let server = Process::start(&[]).await;
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    assert!(cores == 1 || threads(server.id()) >= cores, "{} threads", threads(server.id()));
}
