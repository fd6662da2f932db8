//! The real binary.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use super::within;

/// A running server, killed when it is dropped.
pub struct Process {
    child: Child,
    pub http: SocketAddr,
    pub mqtt: SocketAddr,
    /// Where each inside of TLS is, if anywhere.
    pub https: Option<SocketAddr>,
    pub mqtts: Option<SocketAddr>,
}

/// The binary, with no configuration from this process' environment.
pub fn command() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_fanwire")))
}

fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FANWIRE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

impl Process {
    /// On free ports, with more arguments.
    pub async fn start(arguments: &[&str]) -> Self {
        let mut command = command();
        command.args(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]).args(arguments);
        Self::started(command).await
    }

    /// The same, with its log in a file.
    pub async fn start_logging(arguments: &[&str], log: std::fs::File) -> Self {
        Self::start_logging_on("127.0.0.1:0", arguments, log).await
    }

    /// The same, listening for HTTP on an address of the test's choice.
    pub async fn start_logging_on(http: &str, arguments: &[&str], log: std::fs::File) -> Self {
        let mut command = command();
        command.args(["--http", http, "--mqtt", "127.0.0.1:0"]).args(arguments);
        Self::started_with(command, log.into()).await
    }

    /// Where it may use one core alone.
    pub async fn start_on_one_core() -> Self {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", "0", env!("CARGO_BIN_EXE_fanwire")]);
        command.args(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]);
        Self::started(clean(command)).await
    }

    /// Where another one listened before.
    pub async fn start_at(http: SocketAddr) -> Self {
        let mut command = command();
        command.args(["--http", &http.to_string(), "--mqtt", "127.0.0.1:0"]);
        Self::started(command).await
    }

    /// On free ports, in a shell that ran `before` first: to set limits.
    pub async fn start_after(before: &str) -> Self {
        Self::start_after_with(before, &[]).await
    }

    /// The same with more arguments.
    pub async fn start_after_with(before: &str, arguments: &[&str]) -> Self {
        let mut command = clean(Command::new("sh"));
        // The shell counts them from 0.
        command.args(["-c", &format!("{before}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_fanwire")]);
        command.args(["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"]).args(arguments);
        Self::started(command).await
    }

    /// The same with another standard error.
    pub async fn started_with_stderr(command: Command, stderr: Stdio) -> Self {
        Self::started_with(command, stderr).await
    }

    pub async fn started(command: Command) -> Self {
        Self::started_with(command, Stdio::inherit()).await
    }

    async fn started_with(mut command: Command, stderr: Stdio) -> Self {
        let mut child = command.stderr(stderr).spawn().expect("the binary runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        within(BufReader::new(stdout).read_line(&mut line)).await.expect("a line");
        let address = |name: &str| {
            let words = line.strip_prefix("listening").expect("the start-up line").split_whitespace();
            let value = words.filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name);
            value.and_then(|(_, value)| value.parse().ok())
        };
        let plain = |name| address(name).unwrap_or_else(|| panic!("{name} in {line:?}"));
        let (https, mqtts) = (address("https"), address("mqtts"));
        Process { child, http: plain("http"), mqtt: plain("mqtt"), https, mqtts }
    }

    pub fn id(&self) -> u32 {
        self.child.id().expect("it was not waited for")
    }

    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, signal).expect("it can be signalled");
    }

    pub async fn exit(&mut self) -> ExitStatus {
        within(self.child.wait()).await.expect("it can be waited for")
    }

    /// CPU time used so far, user and system, in clock ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("it lives");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }
}

/// Runs the binary until it ends by itself: exit code and what it said on standard error.
pub async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = command();
    command.args(arguments).envs(environment.iter().copied());
    let mut child = command.spawn().expect("the binary runs");
    let mut said = String::new();
    within(child.stderr.take().expect("piped").read_to_string(&mut said)).await.expect("UTF-8");
    (within(child.wait()).await.expect("it can be waited for").code(), said)
}

/// What a command that ends by itself left.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs a command of the binary to its end, with something on standard input.
pub async fn run_with_input(arguments: &[&str], environment: &[(&str, &str)], input: &[u8]) -> Ended {
    let mut command = command();
    command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let mut stdin = child.stdin.take().expect("piped");
    // A command that does not read its input is no failure of the test.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let output = within(child.wait_with_output()).await.expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}
