//! A NATS server for tests.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything takes that works.
const SOON: Duration = Duration::from_secs(20);

/// A server of NATS that ends with its test.
pub struct Nats {
    program: PathBuf,
    process: Child,
    port: u16,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
}

/// Where a server is: `NATS_SERVER`, else that of a virtual environment, else that of the machine.
fn program() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("NATS_SERVER") {
        return Some(program.into());
    }
    let roots = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().take(2);
    let environments = std::env::var_os("VIRTUAL_ENV").map(PathBuf::from).into_iter();
    let environments =
        environments.chain(roots.map(|root| root.join(".cache/venv"))).map(|venv| venv.join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        environments.chain(std::env::split_paths(&path)).chain(["/usr/sbin".into()]).collect();
    folders.into_iter().map(|folder| folder.join("nats-server")).find(|program| program.is_file())
}

fn version_of(program: &Path) -> Option<(u32, u32)> {
    let said = Command::new(program).arg("--version").output().ok()?.stdout;
    let said = String::from_utf8(said).ok()?;
    let mut numbers = said.trim().rsplit('v').next()?.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

impl Nats {
    /// `None` where there is none, which is said.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("SKIPPED: no nats-server, by NATS_SERVER, in a virtual environment or on the PATH");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let process = spawn(&program, folder.path(), None, &arguments);
        let mut nats = Self { program, process, port: 0, folder, arguments };
        nats.port = nats.read_port("nats");
        nats.wait();
        Some(nats)
    }

    /// Where other servers of a cluster find this one, started with `--cluster nats://127.0.0.1:-1`.
    pub fn route(&self) -> String {
        format!("nats://127.0.0.1:{}", self.read_port("cluster"))
    }

    /// With JetStream, in its folder, if it is new enough to keep messages; else `None`, which is said.
    pub fn keeping() -> Option<Self> {
        let version = version_of(&program()?);
        if version < Some((2, 12)) {
            eprintln!("SKIPPED: durable channels need nats-server 2.12, and here is {version:?}");
            return None;
        }
        Self::in_folder(&program()?, |folder| vec!["-js".to_owned(), "-sd".to_owned(), folder.to_owned()])
    }

    /// Three of those, as one cluster.
    pub fn three_keeping() -> Option<Vec<Self>> {
        let program = program()?;
        if version_of(&program) < Some((2, 12)) {
            eprintln!("SKIPPED: durable channels need nats-server 2.12");
            return None;
        }
        // Each is told of all, so their ports are chosen before.
        let free = |_| std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners: Vec<_> = (0..3).map(free).collect();
        let routes: Vec<_> = listeners
            .iter()
            .map(|listener| format!("nats://127.0.0.1:{}", listener.local_addr().unwrap().port()))
            .collect();
        drop(listeners);
        let start = |(number, own): (usize, &String)| {
            let name = format!("s{number}");
            let all = routes.join(",");
            Self::in_folder(&program, |folder| {
                ["-js", "-sd", folder, "--server_name", &name, "--cluster_name", "fan", "--cluster", own]
                    .into_iter()
                    .chain(["--routes", &all])
                    .map(str::to_owned)
                    .collect()
            })
        };
        routes.iter().enumerate().map(start).collect()
    }

    /// That of Debian, if there is one that is too old to keep messages.
    pub fn old() -> Option<Self> {
        let program = PathBuf::from("/usr/sbin/nats-server");
        if !program.is_file() || version_of(&program) >= Some((2, 12)) {
            eprintln!("SKIPPED: no old nats-server in /usr/sbin");
            return None;
        }
        Self::in_folder(&program, |folder| vec!["-js".to_owned(), "-sd".to_owned(), folder.to_owned()])
    }

    fn in_folder(program: &Path, arguments: impl Fn(&str) -> Vec<String>) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let arguments = arguments(folder.path().to_str()?);
        let process = spawn(program, folder.path(), None, &arguments);
        let mut nats = Self { program: program.to_owned(), process, port: 0, folder, arguments };
        nats.port = nats.read_port("nats");
        nats.wait();
        Some(nats)
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The answer to a question, one of those that operators ask of JetStream.
    pub fn ask(&self, subject: &str, question: &str) -> String {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        connection.set_read_timeout(Some(SOON)).unwrap();
        let head = "CONNECT {\"verbose\":false}\r\nSUB answers 1\r\n";
        write!(connection, "{head}PUB {subject} answers {}\r\n{question}\r\n", question.len()).unwrap();
        let mut lines = BufReader::new(connection).lines().map(Result::unwrap);
        lines.by_ref().find(|line| line.starts_with("MSG ")).expect("an answer");
        lines.next().unwrap()
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// It keeps its connections and does nothing.
    pub fn freeze(&mut self) {
        self.signal(rustix::process::Signal::STOP);
        let state = format!("/proc/{}/stat", self.process.id());
        let end = Instant::now() + SOON;
        while !std::fs::read_to_string(&state).unwrap().contains(") T ") {
            assert!(Instant::now() < end, "the NATS server goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn thaw(&mut self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// At the same port.
    pub fn restart(&mut self) {
        self.process = spawn(&self.program, self.folder.path(), Some(self.port), &self.arguments);
        self.wait();
    }

    /// The port of what its file of ports calls so: `{"nats":["tls://127.0.0.1:4222"],"cluster":[...]}`.
    fn read_port(&self, kind: &str) -> u16 {
        let name = format!("\"{kind}\":");
        let end = Instant::now() + SOON;
        while Instant::now() < end {
            let files = std::fs::read_dir(self.folder.path()).unwrap().filter_map(Result::ok);
            for file in files.filter(|file| file.file_name().to_string_lossy().ends_with(".ports")) {
                let text = std::fs::read_to_string(file.path()).unwrap_or_default();
                let address = text.split(&name).nth(1).and_then(|rest| rest.split('"').nth(1));
                if let Some(port) = address.and_then(|address| address.rsplit(':').next()?.parse().ok()) {
                    return port;
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the NATS server does not say where it listens");
    }

    fn wait(&self) {
        let end = Instant::now() + SOON;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < end, "the NATS server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn spawn(program: &Path, folder: &Path, port: Option<u16>, arguments: &[String]) -> Child {
    let port = port.map_or("-1".to_owned(), |port| port.to_string());
    Command::new(program)
        .args(["-a", "127.0.0.1", "-p", &port, "--ports_file_dir"])
        .arg(folder)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Nats {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}
