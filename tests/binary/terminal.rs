//! What depends on whether a terminal is looked at.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::process::{Process, command};
use crate::support::within;

/// A terminal: the side that is looked at, and what a process has as its standard error.
fn terminal() -> (File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&ours).expect("ours");
    unlockpt(&ours).expect("ours");
    let name = ptsname(&ours, Vec::new()).expect("a name").into_string().expect("UTF-8");
    let theirs = OpenOptions::new().read(true).write(true).open(name).expect("its other side");
    (File::from(ours), theirs)
}

/// All that was written to the terminal until nobody held it any more.
async fn shown(mut ours: File) -> String {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        // The end of a terminal is an error.
        let _ = ours.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    within(read).await.expect("it ended")
}

async fn log_of_a_server(environment: &[(&str, &str)]) -> String {
    let (ours, theirs) = terminal();
    let mut starting: Command = command();
    starting.args(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]).env_remove("NO_COLOR");
    starting.envs(environment.iter().copied()).stderr(Stdio::from(theirs));
    let mut child = starting.spawn().expect("the binary runs");
    drop(starting);
    let mut stdout = tokio::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    within(tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut line)).await.expect("a line");
    // By then it has said which version it is.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    child.kill().await.expect("it can be killed");
    shown(ours).await
}

#[tokio::test]
async fn log_lines_have_colours_on_a_terminal_unless_no_color_says_otherwise() {
    const ESCAPE: char = '\u{1b}';
    let coloured = log_of_a_server(&[]).await;
    assert!(coloured.contains(ESCAPE) && coloured.contains("fanwire"), "{coloured:?}");
    let plain = log_of_a_server(&[("NO_COLOR", "1")]).await;
    assert!(!plain.contains(ESCAPE) && plain.contains("fanwire"), "{plain:?}");
    // Set to nothing it says nothing.
    assert!(log_of_a_server(&[("NO_COLOR", "")]).await.contains(ESCAPE));
}

#[tokio::test]
async fn a_long_pub_shows_how_far_it_is_and_takes_it_away_at_the_end() {
    let server = Process::start(&[]).await;
    let (ours, theirs) = terminal();
    let mut publishing = command();
    publishing.args(["pub", "a", "--lines", "--url", &server.http.to_string()]);
    publishing.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::from(theirs));
    let mut child = publishing.spawn().expect("the binary runs");
    drop(publishing);
    let mut input = child.stdin.take().expect("piped");
    for n in 0..8 {
        input.write_all(format!("{n}\n").as_bytes()).await.expect("it reads");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    drop(input);
    assert!(within(child.wait()).await.expect("it ends").success());
    let seen = shown(ours).await;
    assert!(seen.contains(" lines published, "), "{seen:?}");
    assert!(seen.ends_with("\r\u{1b}[K"), "{seen:?}");
}
