//! The server under test: which one, how it is started, where it listens, what it has used.

mod certificate;
pub(crate) mod floor;
pub(crate) mod origin;
mod sealed;
mod target;

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::dialect::Spoken;
use crate::sys::affinity::Cpus;
use crate::sys::clock::Deadline;
use crate::sys::process::{ProcessTree, raise_descriptor_limit};
use certificate::Certificate;
pub(crate) use target::{AtMost, Launch, Target};

/// How long a server may take until it accepts (under valgrind a start takes seconds).
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a server may take to end after SIGTERM before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// How servers are started.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    pub(crate) cpus: Cpus,
    /// File that the server's output is appended to; none throws it away.
    pub(crate) log: Option<std::path::PathBuf>,
    /// Most subscribers for the servers with these labels.
    pub(crate) at_most: Vec<AtMost>,
    /// What publishers speak at the second port, if it is not the subscribers' protocol.
    pub(crate) publisher: Option<Spoken>,
}

impl Launcher {
    fn max_subscribers(&self, label: &str) -> Option<usize> {
        self.at_most.iter().find(|limit| limit.label == label).map(|limit| limit.subscribers)
    }

    fn publishes_apart(&self, spoken: Spoken) -> bool {
        self.publisher.is_some() || spoken.dialect.publishes_apart()
    }
}

/// A running server; one that was started here is stopped on drop.
pub(crate) struct Server {
    pub(crate) spoken: Spoken,
    pub(crate) address: SocketAddr,
    /// Where publishers connect.
    pub(crate) publish_address: SocketAddr,
    /// As [`Target::max_opening`].
    pub(crate) max_opening: Option<usize>,
    /// Most subscribers this server is given, whatever the scenario asks for.
    pub(crate) max_subscribers: Option<usize>,
    pub(crate) processes: ProcessTree,
    child: Option<Child>,
    /// Its files are there as long as it runs.
    _certificate: Option<Certificate>,
}

impl Server {
    /// Starts `target`, or attaches to it, and waits until it accepts connections.
    ///
    /// # Errors
    /// When it cannot be started or does not listen within a minute.
    pub(crate) fn start(target: &Target, launcher: &Launcher) -> io::Result<Self> {
        let Target { spoken, max_opening, .. } = *target;
        let max_subscribers = launcher.max_subscribers(&target.label);
        let command = match &target.launch {
            Launch::Attach { address, pid } => {
                launcher.cpus.pin_process(*pid)?;
                return Ok(Self {
                    spoken,
                    address: *address,
                    publish_address: *address,
                    max_opening,
                    max_subscribers,
                    processes: ProcessTree::of(*pid),
                    child: None,
                    _certificate: None,
                });
            }
            Launch::Spawn(command) => command,
        };
        let [port, second, third] = [free_port(0)?, free_port(1)?, free_port(2)?];
        let certificate = Certificate::is_asked_for(command).then(Certificate::make).transpose()?;
        let fill = |word: &String| {
            let word =
                certificate.as_ref().map_or_else(|| word.clone(), |certificate| certificate.fill(word));
            word.replace("{address}", &format!("127.0.0.1:{port}"))
                .replace("{port}", &port.to_string())
                .replace("{port2}", &second.to_string())
                .replace("{port3}", &third.to_string())
        };
        let command: Vec<String> = command.iter().map(fill).collect();
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let output = || match &launcher.log {
            Some(path) => Ok(Stdio::from(File::options().create(true).append(true).open(path)?)),
            None => io::Result::Ok(Stdio::null()),
        };
        let child = Command::new(std::env::current_exe()?)
            .args([EXEC, "--cpus", &launcher.cpus.to_string(), "--"])
            .args(&command)
            .stdin(Stdio::null())
            .stdout(output()?)
            .stderr(output()?)
            .spawn()?;
        let pid = child.id();
        let mut server = Self {
            spoken,
            address: local(port),
            publish_address: local(if launcher.publishes_apart(spoken) { second } else { port }),
            max_opening,
            max_subscribers,
            processes: ProcessTree::of(pid),
            child: Some(child),
            _certificate: certificate,
        };
        server.wait_until_up(&target.label)?;
        Ok(server)
    }

    fn wait_until_up(&mut self, label: &str) -> io::Result<()> {
        let deadline = Deadline::after(START_LIMIT);
        while !deadline.passed() {
            let up = |address| TcpStream::connect_timeout(address, Duration::from_millis(500)).is_ok();
            if up(&self.address) && up(&self.publish_address) {
                return Ok(());
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                return Err(io::Error::other(format!(
                    "{label} ended at start with {status}; see --server-log"
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("{label} does not accept; see --server-log")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        signal(child.id(), Signal::TERM);
        let deadline = Deadline::after(STOP_LIMIT);
        while !deadline.passed() {
            if let Ok(Some(_)) = child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        for pid in self.processes.pids() {
            signal(pid, Signal::KILL);
        }
        // Reaped, so that the next round does not find its port taken.
        let _ = child.wait();
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // A process that ended meanwhile needs no signal.
        let _ = kill_process(pid, signal);
    }
}

/// A port below the ephemeral range, so that no client socket can hold it; `salt` keeps two choices apart.
fn free_port(salt: u16) -> io::Result<u16> {
    let start = 20_000 + (std::process::id() % 5_000) as u16 + salt * 5_000;
    (start..start + 500)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| io::Error::other("no free port between 20000 and 35500"))
}

/// Name of the hidden subcommand that becomes the server.
pub(crate) const EXEC: &str = "exec";

/// Becomes `command`: pinned, with all descriptors, and ended when the load generator ends.
///
/// # Errors
/// When the command cannot be run.
pub(crate) fn exec(cpus: &Cpus, command: &[String]) -> io::Result<()> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::other("no command given"));
    };
    set_parent_process_death_signal(Some(Signal::TERM))?;
    raise_descriptor_limit();
    cpus.pin_or_free_self()?;
    let error = Command::new(program).args(arguments).exec();
    Err(io::Error::new(error.kind(), format!("{program}: {error}")))
}
