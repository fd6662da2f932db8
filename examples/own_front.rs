//! A protocol of your own beside the built-in ones: messages as lines of text, over HTTP and over a listener of its
//! own, with a section of its own in the configuration.
//!
//! ```sh
//! printf '[lines]\naddress = "127.0.0.1:7000"\npatience = "30s"\n' > /tmp/lines.toml
//! cargo run --example own_front -- --config /tmp/lines.toml       # or FANWIRE_LINES_ADDRESS=127.0.0.1:7000
//! curl -N http://127.0.0.1:8080/lines/chat/room1                  # every message of the channel is a line
//! (echo 'chat/*'; cat) | nc 127.0.0.1 7000                        # the same, by a filter, without HTTP
//! curl -d hello http://127.0.0.1:8080/v1/publish/chat/room1       # both show `chat/room1 hello`
//! curl -s http://127.0.0.1:8080/metrics | grep lines              # fanwire_lines_sent_total 2
//! ```

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use clap::Parser as _;
use fanwire::edge::{self, Body, OriginPolicy, Peer, Problem, Response, TokenSources};
use fanwire::front::{Accepted, Common, Context, Front, Metric, Refusal, Section, Task};
use fanwire::settings::{Period, Setting as _, Size};
use fanwire::{
    Action, Arguments, Credentials, Filter, Loader, OwnFront, Principal, Reload, Server, Subscription,
};
use http::Request;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How the front is set up.
#[derive(Clone)]
struct Config {
    /// The longest filter that a client may name, in bytes.
    max_line_bytes: usize,
    /// How long it may take to name it.
    patience: Duration,
    /// What may wait in a response for its reader, in bytes.
    max_waiting_bytes: usize,
    /// Where it listens by itself.
    address: Option<SocketAddr>,
    /// Web pages that may come.
    origins: OriginPolicy,
    /// Where a token is read beside the headers.
    token_sources: TokenSources,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_line_bytes: 1024,
            patience: Duration::from_secs(10),
            max_waiting_bytes: 64 * 1024,
            address: None,
            origins: OriginPolicy::SameOrigin,
            token_sources: TokenSources::default(),
        }
    }
}

fanwire::settings::section!(
    /// `[lines]`: what of it can be set in a file. The server adds `address`.
    LinesSection: Config { max_line_bytes: Size, patience: Period, max_waiting_bytes: Size }
);

impl Section for LinesSection {
    type Config = Config;
    const NAME: &'static str = "lines";
    const ADDRESS: Option<&'static str> = Some("off");

    fn into_config(self, common: &Common) -> Config {
        Config {
            address: common.address,
            origins: common.origins.clone(),
            token_sources: common.token_sources.clone(),
            ..self.into_value()
        }
    }
}

/// Clones are handles to the same front.
#[derive(Clone)]
struct Lines {
    context: Context,
    config: Config,
    sent: Arc<AtomicU64>,
    closing: watch::Sender<bool>,
}

impl Front for Lines {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn claims(&self, path: &str) -> bool {
        path.starts_with("/lines/")
    }

    fn handle(&self, peer: Option<Peer>, request: Request<Body>) -> Task<Response> {
        let front = self.clone();
        Box::pin(async move {
            let (mut parts, _) = request.into_parts();
            if let Some(peer) = peer {
                parts.extensions.insert(peer);
            }
            // Another site's page must not read with the visitor's rights.
            if !front.config.origins.allows(&parts.headers) {
                return Problem::forbidden("not for pages of other sites").response();
            }
            let credentials = edge::credentials_from(&parts, &front.config.token_sources);
            let principal = match credentials.authenticate(&*front.context.authenticator, "lines").await {
                Ok(principal) => principal,
                Err(error) => return Problem::from(error).response(),
            };
            let filter = parts.uri.path().trim_start_matches("/lines/");
            match front.subscribe(&principal, filter) {
                Ok(messages) => {
                    let (writer, body) = edge::pipe(front.config.max_waiting_bytes);
                    tokio::spawn(front.write(messages, writer));
                    http::Response::new(body)
                }
                Err(why) => Problem::forbidden(why).response(),
            }
        })
    }

    fn listens(&self) -> Option<SocketAddr> {
        self.config.address
    }

    fn serve(&self, accepted: Accepted) -> Task {
        let front = self.clone();
        Box::pin(async move {
            let (reader, mut writer) = tokio::io::split(accepted.socket.into_stream());
            let mut line = String::new();
            let mut reader = BufReader::new(reader.take(front.config.max_line_bytes as u64));
            let Ok(Ok(1..)) = tokio::time::timeout(front.config.patience, reader.read_line(&mut line)).await
            else {
                return;
            };
            let mut nobody = Credentials::default();
            nobody.remote = Some(accepted.peer);
            nobody.protocol = "lines";
            let Ok(principal) = front.context.authenticator.authenticate(nobody).await else { return };
            match front.subscribe(&principal, line.trim()) {
                Ok(messages) => front.write(messages, writer).await,
                Err(why) => _ = writer.write_all(format!("! {why}\n").as_bytes()).await,
            }
        })
    }

    fn refuse_stream(&self, refusal: &Refusal, accepted: Accepted) -> Task {
        let why = format!("! {}\n", refusal.problem.detail);
        Box::pin(async move { _ = accepted.socket.into_stream().write_all(why.as_bytes()).await })
    }

    fn collect(&self, out: &mut Vec<Metric>) {
        out.push(Metric::counter("lines_sent", "Messages sent as lines", self.sent.load(Relaxed)));
    }

    fn shut_down(&self, _: Duration) -> Task {
        let closing = self.closing.clone();
        Box::pin(async move {
            closing.send_replace(true);
            closing.closed().await;
        })
    }
}

impl Lines {
    fn subscribe(&self, principal: &Principal, filter: &str) -> Result<Subscription, String> {
        let filter = Filter::parse(filter).map_err(|error| error.to_string())?;
        if !principal.allows_filter(Action::Subscribe, &filter) {
            return Err(format!("no right to subscribe to {filter}"));
        }
        self.context.broker.subscribe(filter).map_err(|error| error.to_string())
    }

    /// Until the reader goes or the server does.
    async fn write(self, mut messages: Subscription, mut writer: impl AsyncWrite + Unpin) {
        let mut closing = self.closing.subscribe();
        while let Some(message) = tokio::select! {
            message = messages.message() => message,
            _ = closing.wait_for(|closing| *closing) => None,
        } {
            let mut line = format!("{} ", message.channel()).into_bytes();
            line.extend_from_slice(message.payload());
            line.push(b'\n');
            if writer.write_all(&line).await.is_err() {
                break;
            }
            self.sent.fetch_add(1, Relaxed);
        }
        _ = writer.shutdown().await;
    }
}

#[derive(clap::Parser)]
struct CommandLine {
    #[command(flatten)]
    server: Arguments,
}

async fn serve(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let lines = OwnFront::with_section::<LinesSection, _>(|context, config| Lines {
        context: context.clone(),
        config,
        sent: Arc::default(),
        closing: watch::Sender::new(false),
    });
    let loaded = Loader::default().with_front(lines).load(arguments.clone(), std::env::vars_os())?;
    fanwire::logging::start(&loaded.logging)?;
    let server = Server::bind(loaded.config.clone()).await?;
    let reload = Reload::new(arguments, &loaded, &server);
    tokio::spawn(reload.run(signal(SignalKind::hangup())?));
    let show = |address: Option<SocketAddr>| address.map_or("off".to_owned(), |address| address.to_string());
    println!(
        "listening http={} mqtt={} lines={}",
        show(server.http_address()),
        show(server.mqtt_address()),
        show(server.address_of("lines"))
    );
    std::io::stdout().flush()?;
    server.run(async { _ = tokio::signal::ctrl_c().await }).await;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match serve(CommandLine::parse().server).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("own_front: {error}");
            ExitCode::FAILURE
        }
    }
}
