//! A protocol of your own beside the built-in ones: messages as lines of text, over HTTP and over a listener of its own.
//!
//! ```sh
//! cargo run --example own_front -- --http 127.0.0.1:8080 --lines 127.0.0.1:7000
//! curl -N http://127.0.0.1:8080/lines/chat/room1                  # every message of the channel is a line
//! (echo 'chat/*'; cat) | nc 127.0.0.1 7000                        # the same, by a filter, without HTTP
//! curl -d hello http://127.0.0.1:8080/v1/publish/chat/room1       # both show `chat/room1 hello`
//! curl -s http://127.0.0.1:8080/metrics | grep lines              # fanwire_lines_sent_total 2
//! ```

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use fanwire::edge::{self, Body, OriginPolicy, Peer, Problem, Response, TokenSources};
use fanwire::front::{Accepted, Context, Front, Metric, Refusal, Task};
use fanwire::{Action, Config, Credentials, Filter, Principal, Server, Subscription};
use http::Request;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::watch;

/// The longest filter that a client may name, in bytes.
const MAX_LINE_BYTES: u64 = 1024;
/// How long it may take to name it.
const PATIENCE: Duration = Duration::from_secs(10);
/// What may wait in a response for its reader, in bytes.
const MAX_WAITING_BYTES: usize = 64 * 1024;

/// Clones are handles to the same front.
#[derive(Clone)]
struct Lines {
    context: Context,
    address: Option<SocketAddr>,
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
            if !OriginPolicy::SameOrigin.allows(&parts.headers) {
                return Problem::forbidden("not for pages of other sites").response();
            }
            let credentials = edge::credentials_from(&parts, &TokenSources::default());
            let principal = match credentials.authenticate(&*front.context.authenticator, "lines").await {
                Ok(principal) => principal,
                Err(error) => return Problem::from(error).response(),
            };
            let filter = parts.uri.path().trim_start_matches("/lines/");
            match front.subscribe(&principal, filter) {
                Ok(messages) => {
                    let (writer, body) = edge::pipe(MAX_WAITING_BYTES);
                    tokio::spawn(front.write(messages, writer));
                    http::Response::new(body)
                }
                Err(why) => Problem::forbidden(why).response(),
            }
        })
    }

    fn listens(&self) -> Option<SocketAddr> {
        self.address
    }

    fn serve(&self, accepted: Accepted) -> Task {
        let front = self.clone();
        Box::pin(async move {
            let (reader, mut writer) = tokio::io::split(accepted.socket.into_stream());
            let mut line = String::new();
            let mut reader = BufReader::new(reader.take(MAX_LINE_BYTES));
            let Ok(Ok(1..)) = tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await else {
                return;
            };
            let nobody =
                Credentials { remote: Some(accepted.peer), protocol: "lines", ..Credentials::default() };
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

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (mut config, mut lines) = (Config { mqtt: None, ..Config::default() }, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let address: SocketAddr = arguments.next().ok_or("an address must follow")?.parse()?;
        match name.as_str() {
            "--http" => config.http = Some(address),
            "--mqtt" => config.mqtt = Some(address),
            "--lines" => lines = Some(address),
            _ => return Err(format!("unknown argument {name}").into()),
        }
    }
    let config = config.with_front(move |context| Lines {
        context: context.clone(),
        address: lines,
        sent: Arc::default(),
        closing: watch::Sender::new(false),
    });
    let server = Server::bind(config).await?;
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
