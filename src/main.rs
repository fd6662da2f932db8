//! The Fanwire binary: arguments, configuration, [`Server`], exit code; or one of the commands that talk to a server.

mod command_line;
mod data;
mod greeting;
mod keys;
mod manager;
mod manual;
mod nodes;
mod say;
mod token;

use std::io::Write as _;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use fanwire::edge::{HostPolicy, OriginPolicy};
use fanwire::{Arguments, Loaded, Loader, Reload, Rights, Server, Tls, TlsConfig, TlsError};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::command_line::{Command, CommandLine, ConfigCommand};
use self::say::say;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a wrong configuration, an unreadable file or a port in use ends with.
const MISCONFIGURED: u8 = 2;

fn main() -> ExitCode {
    // Before memory is used for anything that stays.
    allow_huge_pages(false);
    // With `--help`, `--version` or arguments that make no sense this ends the process, as command lines do.
    let CommandLine { command, server } = CommandLine::try_parse().unwrap_or_else(|error| {
        if let Some(file) = file_for_a_command(&error) {
            say(format!(
                "fanwire: `{file}` is a file and no command; a configuration is named by --config {file}"
            ));
            std::process::exit(MISCONFIGURED.into());
        }
        error.exit()
    });
    match command {
        None => exit_code(serve(server)),
        Some(Command::Pub(publish)) => client::publish(publish),
        Some(Command::Sub(subscribe)) => client::subscribe(subscribe),
        Some(Command::Connections(connections)) => client::connections(connections),
        Some(Command::Close(close)) => client::close(close),
        Some(Command::Channels(channels)) => client::channels(channels),
        Some(Command::History(history)) => client::history(history),
        Some(Command::Retained(retained)) => client::retained(retained),
        Some(Command::Dead { what }) => client::dead(what),
        Some(Command::Health(health)) => client::health(health),
        Some(Command::Bench(bench)) => client::bench(bench),
        Some(Command::Context { what }) => client::context(what),
        Some(Command::Token(command)) => token::run(command).unwrap_or_else(|error| exit_code(Err(error))),
        Some(Command::Completions { shell }) => exit_code(manual::completions(shell)),
        Some(Command::Man { folder }) => exit_code(manual::man(folder.as_deref())),
        Some(Command::Store { what }) => data::run(what),
        Some(Command::Key(command)) => exit_code(keys::run(command)),
        Some(Command::Config { what: ConfigCommand::Show { file, defaults } }) => {
            exit_code(show_config(file.path(), defaults))
        }
        Some(Command::ImportRoutes { file }) => {
            import_routes(&file).unwrap_or_else(|error| exit_code(Err(error)))
        }
        Some(Command::CheckConfig { file }) => exit_code(check_config(file.path())),
    }
}

/// The file that stands where a command is expected, as other programs have their configuration there.
fn file_for_a_command(error: &clap::Error) -> Option<&String> {
    match error.get(clap::error::ContextKind::InvalidSubcommand)? {
        clap::error::ContextValue::String(name) => Some(name).filter(|name| Path::new(name).is_file()),
        _ => None,
    }
}

fn exit_code(outcome: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads what is printed may have had enough.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            say(format!("fanwire: {error}"));
            ExitCode::from(MISCONFIGURED)
        }
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Pushpin's routes as ours.
fn import_routes(file: &Path) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let text = match file.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin())?,
        _ => std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?,
    };
    let imported = fanwire::gateway_grip::import::routes(&text);
    std::io::stdout().write_all(imported.toml.as_bytes())?;
    for lost in &imported.lost {
        say(format!("line {}: {}", lost.line, lost.what));
    }
    Ok(if imported.lost.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Whether the kernel may back memory with transparent huge pages. The allocator asks for them wherever it can, and
/// then a connection's few kilobytes between others that are free again cost two megabytes, which the kernel even fills
/// up behind the allocator's back: what a thousand clients had begun and left was 1.1 GB instead of 70 MB.
fn allow_huge_pages(allowed: bool) {
    // A kernel without them refuses, and has none to switch off.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(!allowed);
    #[cfg(not(target_os = "linux"))]
    let _ = allowed;
}

/// The cores that this process may use; one if nobody knows.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn serve(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut loaded = fanwire::load(arguments.clone(), std::env::vars_os())?;
    check_serves(&loaded.config)?;
    allow_huge_pages(loaded.huge_pages);
    fanwire::logging::start(&loaded.logging)?;
    let store = data::open(loaded.store.clone())?;
    loaded.config.store = store.clone();
    let descriptors = fanwire::raise_descriptor_limit();
    let threads = loaded.worker_threads.unwrap_or_else(cores);
    let mut runtime = match threads {
        // Serves connections in the order in which they have something to say. With no other thread in the process the
        // kernel also looks up each socket for less.
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.worker_threads(threads.max(1)).enable_all().build()?;
    runtime.block_on(async {
        // Before anybody knows the port: a signal from then on is a request to stop, not to die.
        let signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        let hang_up = signal(SignalKind::hangup())?;
        let cluster = nodes::join(loaded.cluster.clone()).await?;
        loaded.config.cluster = cluster.clone();
        let server = Server::bind(loaded.config.clone()).await?;
        let reload = Reload::new(arguments, &loaded, &server);
        tokio::spawn(reload.around(manager::reloading, manager::reloaded).run(hang_up));
        let watching = store.as_ref().map(|store| {
            let watching = data::watch(Arc::clone(store), server.fronts().clone());
            [tokio::spawn(watching), tokio::spawn(data::answer_backups(Arc::clone(store)))]
        });
        if let Some(cluster) = &cluster {
            fanwire::share_rates(cluster, loaded.rights.live.authenticator.clone());
            tokio::spawn(nodes::watch(Arc::clone(cluster), server.fronts().clone()));
        }
        announce(&server, &loaded, descriptors);
        manager::watch_over(&server);
        let stop = async {
            signals.stop().await;
            manager::stopping();
        };
        server.run(stop).await;
        if let Some(cluster) = &cluster {
            cluster.leave().await;
        }
        // What was taken is on the disk before the process says that it has ended.
        if let (Some(store), Some(watching)) = (&store, watching) {
            watching.iter().for_each(tokio::task::JoinHandle::abort);
            store.close();
        }
        tracing::info!("stopped");
        Ok(())
    })
}

/// An embedding service may listen by itself; the binary that does not listen at all would run for nobody.
fn check_serves(config: &fanwire::Config) -> Result<(), &'static str> {
    let mqtts = config.front_tls.values().find_map(|tls| tls.address);
    match (config.http.or(config.http_tls.address), config.mqtt.or(mqtts)) {
        (None, None) => Err("`http.address` and `mqtt.address` are both \"off\": nothing would be served"),
        _ => Ok(()),
    }
}

/// One line about what would be served.
fn show_config(file: Option<PathBuf>, defaults: bool) -> Result<(), Box<dyn std::error::Error>> {
    let text = if defaults {
        Loader::default().show_defaults()
    } else {
        let mut arguments = Arguments::default();
        arguments.config = file;
        fanwire::load(arguments, std::env::vars_os())?.show()
    };
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn check_config(file: Option<PathBuf>) -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = Arguments::default();
    arguments.config = file;
    let Loaded { config, has_rights, rights, cluster, .. } = fanwire::load(arguments, std::env::vars_os())?;
    check_serves(&config)?;
    let certificates = check_certificates(config.tls.clone())?;
    let show =
        |address: Option<SocketAddr>| address.map_or_else(|| "off".to_owned(), |address| address.to_string());
    let access = &rights.access;
    let who = if has_rights {
        let anonymous = if access.anonymous.is_some() { "some rights" } else { "no rights" };
        let (keys, users, issuers) = (access.keys.len(), access.users.len(), access.issuers.len());
        format!("keys={keys} users={users} issuers={issuers} anonymous=\"{anonymous}\"")
    } else {
        "no rights are configured: everybody may do everything".to_owned()
    };
    let mut line = format!("ok http={} mqtt={}", show(config.http), show(config.mqtt));
    let mqtts = config.front_tls.get("mqtt").and_then(|tls| tls.address);
    for (name, address) in [("https", config.http_tls.address), ("mqtts", mqtts)] {
        if let Some(address) = address {
            line.push_str(&format!(" {name}={address}"));
        }
    }
    let cluster = cluster.map(|cluster| {
        format!(" cluster={} node={} nats_servers={}", cluster.prefix, cluster.node, cluster.servers.len())
    });
    let cluster = cluster.unwrap_or_default();
    Ok(writeln!(std::io::stdout(), "{line} {who}{certificates}{cluster}")?)
}

/// What certificates are for, and how long; an error if clients would not trust one.
fn check_certificates(config: Option<TlsConfig>) -> Result<String, TlsError> {
    let Some(config) = config else { return Ok(String::new()) };
    let tls = Tls::new(config)?;
    tls.check()?;
    let one = |(names, days): (String, u64)| format!(" certificate=\"{names}\" days_left={days}");
    Ok(tls.certificates().into_iter().map(one).collect())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Ready at the first signal; the second one ends the process there and then.
    async fn stop(mut self) {
        // Not among the arguments of the line: those of one that is not written are not looked at.
        let name = self.next().await;
        tracing::info!("stopping on {name}; a second signal stops at once");
        tokio::spawn(async move {
            let name = self.next().await;
            tracing::warn!("stopped at once on {name}");
            std::process::exit(1);
        });
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Which web pages may come, and by which names they reach the server.
fn pages(origins: &OriginPolicy, hosts: &HostPolicy) -> String {
    let own = match hosts {
        HostPolicy::Names(names) if names.is_empty() => {
            "this server's own (by an address or localhost; `server.hosts` adds names)".to_owned()
        }
        HostPolicy::Names(names) => {
            format!("this server's own (by an address, localhost, {})", names.join(", "))
        }
        _ => "this server's own (by any name)".to_owned(),
    };
    match origins {
        OriginPolicy::Any => {
            "every one may use this server, as `server.allowed_origins` is [\"*\"]".to_owned()
        }
        OriginPolicy::List(list) if !list.is_empty() => format!("{own} and those of {}", list.join(", ")),
        OriginPolicy::Loopback => {
            format!("{own} and those of localhost on any port; `server.allowed_origins` lets others in")
        }
        _ => format!("{own}; `server.allowed_origins` lets others in"),
    }
}

/// One line for programs on standard output, the rest for people.
fn announce(server: &Server, loaded: &Loaded, descriptors: usize) {
    let (http, mqtt) = (server.http_address(), server.mqtt_address());
    let mut line = String::from("listening");
    let (https, mqtts) = (server.https_address(), server.mqtts_address());
    let grip = server.address_of("route");
    let all = [("http", http), ("mqtt", mqtt), ("https", https), ("mqtts", mqtts), ("grip", grip)];
    for (name, address) in all {
        if let Some(address) = address {
            line.push_str(&format!(" {name}={address}"));
        }
    }
    // Whoever started us may not care to read it.
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    manager::ready(&line);

    let show =
        |address: Option<SocketAddr>| address.map_or_else(|| "off".to_owned(), |address| address.to_string());
    tracing::info!(
        http = show(http),
        mqtt = show(mqtt),
        descriptors,
        "fanwire {}",
        env!("CARGO_PKG_VERSION")
    );
    if !loaded.has_rights {
        tracing::warn!("no rights are configured: everybody who reaches these addresses may do everything");
    }
    if let Some(http) = http {
        tracing::info!("web pages: {}", pages(&loaded.rights.origins, server.hosts()));
        let nobody = || loaded.rights.access.anonymous.clone().unwrap_or_default();
        let everybody = if loaded.has_rights { nobody() } else { Rights::all() };
        for line in greeting::lines(http, &everybody) {
            tracing::info!("{line}");
        }
        #[cfg(feature = "grip")]
        if let Some(line) = greeting::grip(http, &loaded.config.grip.settings) {
            tracing::info!("{line}");
        }
    }
}
