//! What connections are greeted with, and how that changes while the server runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use front::{Metric, MetricSource};
use link::{Handshake, HandshakeError, Handshakes, handshake};
use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};

use super::certificate::{Certificate, certificates, identity};
use super::names::ByName;
use super::{ClientAuth, TlsConfig, TlsError, TlsVersion};

/// A certificate that ends sooner is told of in the log.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Shakes hands with clients. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Tls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: TlsConfig,
    handshakes: Handshakes,
    live: RwLock<Arc<Live>>,
    reloads: AtomicU64,
    refused_reloads: AtomicU64,
}

/// What is shown to those who come now.
#[derive(Debug)]
struct Live {
    certificates: Vec<Arc<Certificate>>,
    http: Arc<ServerConfig>,
    stream: Arc<ServerConfig>,
    shared: Arc<ServerConfig>,
    http_briefly: Arc<ServerConfig>,
    shared_briefly: Arc<ServerConfig>,
    /// As the files were before they were read.
    stamps: Vec<Stamp>,
}

type Stamp = Option<(SystemTime, u64)>;

/// What is spoken inside, where a client may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside {
    /// HTTP/2 or HTTP/1.1.
    Http,
    /// A protocol of its own.
    Stream,
    /// Either.
    Both,
    /// HTTP/1.1, for one answer: that there is no room can be said in it before anything is known of the client.
    HttpBriefly,
    /// That, or a protocol of its own.
    BothBriefly,
}

/// The name of MQTT in ALPN.
pub(crate) const MQTT: &[u8] = b"mqtt";

impl Tls {
    /// Reads the certificates. One that is over is no more than a line in the log: a server that is started again is
    /// not to stay down for it.
    ///
    /// # Errors
    /// A file that cannot be read, a key that is another certificate's, a chain that is none.
    pub fn new(config: TlsConfig) -> Result<Self, TlsError> {
        let live = Live::read(&config)?;
        if let Err(error) = live.check() {
            tracing::error!(%error, "clients will not trust this certificate");
        }
        live.warn();
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let handshakes = Handshakes::new(config.max_handshakes, config.handshake_timeout, threads);
        let (reloads, refused_reloads) = (AtomicU64::new(0), AtomicU64::new(0));
        let live = RwLock::new(Arc::new(live));
        Ok(Tls(Arc::new(Shared { config, handshakes, live, reloads, refused_reloads })))
    }

    /// Names and days left of each certificate, in the order of the configuration.
    pub fn certificates(&self) -> Vec<(String, u64)> {
        self.left().into_iter().map(|(names, left)| (names, left.as_secs() / DAY.as_secs())).collect()
    }

    /// Names of each certificate and how long it is good.
    fn left(&self) -> Vec<(String, Duration)> {
        let (live, now) = (self.live(), SystemTime::now());
        let left = |certificate: &Certificate| certificate.ends.duration_since(now).unwrap_or_default();
        live.certificates.iter().map(|one| (one.names.join(","), left(one))).collect()
    }

    /// Whether all certificates are good now.
    ///
    /// # Errors
    /// The first one that has ended, or has not begun.
    pub fn check(&self) -> Result<(), TlsError> {
        self.live().check()
    }

    fn live(&self) -> Arc<Live> {
        Arc::clone(&self.0.live.read())
    }

    /// Shakes hands; with the client's name, if it has shown a certificate.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        inside: Inside,
    ) -> Result<(Handshake, Option<Arc<str>>), HandshakeError> {
        let live = self.live();
        let config = match inside {
            Inside::Http => &live.http,
            Inside::Stream => &live.stream,
            Inside::Both => &live.shared,
            Inside::HttpBriefly => &live.http_briefly,
            Inside::BothBriefly => &live.shared_briefly,
        };
        let done = handshake(stream, Arc::clone(config), &self.0.handshakes).await?;
        let name = done.client.as_ref().and_then(|shown| identity(shown, self.0.config.client_identity));
        Ok((done, name.map(Arc::from)))
    }

    /// Reads the files again. What is wrong with them leaves everything as it is.
    ///
    /// # Errors
    /// As [`Tls::new`] and [`Tls::check`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = Live::read(&self.0.config).and_then(|live| live.check().map(|()| live));
        match fresh {
            Ok(live) => {
                live.warn();
                *self.0.live.write() = Arc::new(live);
                self.0.reloads.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(error) => {
                self.0.refused_reloads.fetch_add(1, Relaxed);
                Err(error)
            }
        }
    }

    /// Reads the files again whenever they have changed and then stayed as they are for one interval, for ever.
    pub(crate) async fn watch(self) {
        let every = self.0.config.reload_interval;
        if every.is_zero() {
            return std::future::pending().await;
        }
        let mut ticks = interval(every.max(Duration::from_millis(50)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let files = files(&self.0.config);
        let (mut read, mut last) = (self.live().stamps.clone(), self.live().stamps.clone());
        loop {
            ticks.tick().await;
            let now = stamps(&files);
            let is_still = std::mem::replace(&mut last, now.clone()) == now;
            if !is_still || now == read {
                continue;
            }
            read = now;
            match self.reload() {
                Ok(()) => {
                    let (names, days): (Vec<_>, Vec<_>) = self.certificates().into_iter().unzip();
                    tracing::info!(?names, ?days, "certificates were reloaded");
                }
                Err(error) => {
                    tracing::error!(%error, "the changed certificates are not taken over; the old ones stay");
                }
            }
        }
    }
}

impl Live {
    fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        let stamps = stamps(&files(config));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let read = |files| Certificate::read(files, &provider).map(Arc::new);
        let certificates: Vec<_> = config.certificates.iter().map(read).collect::<Result<_, _>>()?;
        if certificates.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let mut base = server_config(config, &certificates, &provider)?;
        // Clients that resume need no signature of ours. Keys change every six hours; those before a reload are
        // forgotten.
        base.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        let offering = |protocols: &[&[u8]]| {
            let mut config = base.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        let http = offering(&[b"h2", b"http/1.1"]);
        let shared = offering(&[b"h2", b"http/1.1", MQTT]);
        let (http_briefly, shared_briefly) = (offering(&[b"http/1.1"]), offering(&[b"http/1.1", MQTT]));
        Ok(Live { certificates, http, stream: offering(&[]), shared, http_briefly, shared_briefly, stamps })
    }

    fn check(&self) -> Result<(), TlsError> {
        let now = SystemTime::now();
        self.certificates.iter().try_for_each(|certificate| certificate.check_time(now).map(drop))
    }

    fn warn(&self) {
        for certificate in &self.certificates {
            if let Ok(left) = certificate.check_time(SystemTime::now())
                && left < SOON
            {
                let days = left.as_secs() / DAY.as_secs();
                tracing::warn!(file = %certificate.file.display(), days, "this certificate expires soon");
            }
        }
    }
}

fn server_config(
    config: &TlsConfig,
    own: &[Arc<Certificate>],
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, TlsError> {
    let versions = match config.min_version {
        TlsVersion::Tls12 => rustls::ALL_VERSIONS,
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(versions)?;
    let resolver = Arc::new(ByName(own.to_vec()));
    let Some(file) = &config.client_ca_file else {
        return Ok(builder.with_no_client_auth().with_cert_resolver(resolver));
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(file)? {
        roots.add(authority).map_err(|error| TlsError::file(file, error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let verifier = match config.client_auth {
        ClientAuth::Optional => verifier.allow_unauthenticated(),
        ClientAuth::Required => verifier,
    };
    let verifier = verifier.build().map_err(|error| TlsError::file(file, error))?;
    Ok(builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver))
}

fn files(config: &TlsConfig) -> Vec<PathBuf> {
    let own = config.certificates.iter().flat_map(|one| [one.cert_file.clone(), one.key_file.clone()]);
    own.chain(config.client_ca_file.clone()).collect()
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(stamp).collect()
}

impl MetricSource for Tls {
    fn collect(&self, out: &mut Vec<Metric>) {
        let stats = self.0.handshakes.stats();
        let help = "Time until a certificate, or one above it, ends";
        out.extend(self.left().into_iter().map(|(names, left)| {
            let seconds = left.as_secs() as f64;
            Metric::seconds("tls_certificate_remaining_seconds", help, seconds).with("certificate", names)
        }));
        let help = "TLS handshakes under way now";
        out.push(Metric::gauge("tls_handshakes_under_way", help, stats.under_way as u64));
        let help =
            "Time from a TLS client's connection to the end of its handshake, where that led to something";
        out.push(Metric::histogram("tls_handshake_seconds", help, stats.times));
        let help = "TLS handshakes: those that led to a connection, that failed, whose client left, that took too \
                    long, and that were not begun because there were too many";
        let outcomes = [
            ("done", stats.done),
            ("failed", stats.failed),
            ("left", stats.left),
            ("slow", stats.slow),
            ("refused", stats.refused),
        ];
        out.extend(
            outcomes.map(|(outcome, count)| {
                Metric::counter("tls_handshakes", help, count).with("outcome", outcome)
            }),
        );
        let help =
            "Times that certificates were read again, and taken over or, as something was wrong, refused";
        let outcomes = [("taken", &self.0.reloads), ("refused", &self.0.refused_reloads)];
        out.extend(outcomes.map(|(outcome, count)| {
            Metric::counter("tls_reloads", help, count.load(Relaxed)).with("outcome", outcome)
        }));
    }
}
