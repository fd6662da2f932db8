//! The client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use tokio::time::timeout;

use crate::body::{Body, Lease};
use crate::config::Config;
use crate::connect::{Connector, server_name};
use crate::connection::{Connection, Stream, Unanswered};
use crate::error::{Error, Phase};
use crate::payload::Payload;
use crate::pool::{Bounds, Pool};
use crate::target::{Ready, Target};

/// Sends requests, and keeps connections for the next ones. A clone is the same client.
#[derive(Clone, Debug)]
pub struct Client {
    connector: Arc<Connector>,
    pool: Arc<Pool>,
}

/// Why a request has no answer, and the request where it can be sent again.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unsent {
    /// Why.
    pub error: Error,
    /// The request, where nothing of it was sent.
    pub request: Option<Box<Request<Payload>>>,
}

impl Unsent {
    fn untouched(error: Error, ready: Ready) -> Self {
        Self { error, request: Some(Box::new(ready.into_request())) }
    }
}

impl From<Error> for Unsent {
    fn from(error: Error) -> Self {
        Self { error, request: None }
    }
}

impl Client {
    /// A client that calls out as `config` says. Nothing is read or connected to yet.
    pub fn new(config: Config) -> Self {
        let pool = Pool::new(Bounds {
            max_requests: config.max_requests_per_host,
            max_idle: config.max_idle_per_host,
            idle_timeout: config.idle_timeout,
            turn_timeout: config.answer_timeout,
        });
        Self { connector: Arc::new(Connector::new(config)), pool }
    }

    /// Whether `url` can be called: http or https, with a host that, for https, a certificate can be for.
    ///
    /// # Errors
    /// [`Error::Address`] says why not.
    pub fn check(url: &Uri) -> Result<(), Error> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = url.clone();
        let (target, _) = Target::of(request)?;
        if target.is_tls { server_name(&target.host).map(drop) } else { Ok(()) }
    }

    /// Sends a request to its absolute URL and returns the answer, whatever its status, when its head has come.
    /// Redirects are answers too. `Host` is set by the URL, `User-Agent` where the request has none, and
    /// `Authorization` by credentials in the URL.
    ///
    /// # Errors
    /// Each [`Error`] but [`Error::TooLarge`] and [`Error::Status`]. The request was perhaps received with
    /// [`Error::Broken`], [`Error::NotHttp`] and a [`Error::Timeout`] of [`Phase::Answer`]; with the others it was not.
    ///
    /// # Cancel safety
    /// A future that is dropped may have sent the request.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, Error> {
        let (target, ready) = Target::of(request)?;
        self.send_to(target, ready).await.map_err(|unsent| unsent.error)
    }

    /// Sends a request whose body may be a stream, as it is: nothing is added but a `Host` where there is none. For
    /// whoever passes requests of others on.
    ///
    /// An answer of 101 hands the connection over: `hyper::upgrade::on` has it.
    ///
    /// # Errors
    /// As [`Client::send`]; the request is given back where nothing of it was sent.
    ///
    /// # Cancel safety
    /// As [`Client::send`].
    pub async fn pass(&self, request: Request<Payload>) -> Result<Response<Body>, Unsent> {
        let (target, ready) = Target::of_any(request).map_err(Unsent::from)?;
        self.send_to(target, ready).await
    }

    async fn send_to(&self, target: Target, mut ready: Ready) -> Result<Response<Body>, Unsent> {
        let turn = match self.pool.turn(&target).await {
            Ok(turn) => turn,
            Err(error) => return Err(Unsent::untouched(error, ready)),
        };
        loop {
            let kept = self.pool.take(&target).await;
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => match self.connector.connect(&target).await {
                    Ok(made) => {
                        self.pool.share(&target, &made);
                        made
                    }
                    Err(error) => return Err(Unsent::untouched(error, ready)),
                },
            };
            match self.ask(&mut connection, ready).await {
                Ok(answer) => {
                    let pool = Arc::clone(&self.pool);
                    let lease = Lease { pool, target, connection, turn };
                    return Ok(match answer.status() {
                        // The connection carries something else from here on.
                        StatusCode::SWITCHING_PROTOCOLS => answer.map(Body::unpooled),
                        _ => answer.map(|incoming| Body::new(incoming, lease)),
                    });
                }
                // A kept connection ended before the request was on it, which is nobody's fault.
                Err(Unanswered::Untouched(again)) if is_kept => ready = *again,
                Err(Unanswered::Untouched(again)) => {
                    let error = Error::Broken("the connection ended at once".to_owned());
                    return Err(Unsent::untouched(error, *again));
                }
                Err(Unanswered::Failed(error)) => return Err(error.into()),
            }
        }
    }

    /// Sends a request and reads the whole answer: at most `max_bytes`, and all `within` a time.
    ///
    /// # Errors
    /// As [`Client::send`], and [`Error::TooLarge`].
    pub async fn fetch(
        &self,
        request: Request<Bytes>,
        max_bytes: usize,
        within: Duration,
    ) -> Result<Response<Bytes>, Error> {
        let whole = async {
            let (head, body) = self.send(request).await?.into_parts();
            Ok(Response::from_parts(head, body.read(max_bytes).await?))
        };
        timeout(within, whole).await.map_err(|_| Error::timeout(Phase::Whole, within))?
    }

    /// A connection of its own to where `url` (http or https) leads, for a protocol that begins as HTTP/1.1 and becomes
    /// another one, such as WebSocket. It counts in no bound of this client.
    ///
    /// # Errors
    /// Those of the phases up to the TLS handshake.
    pub async fn open(&self, url: &Uri) -> Result<Stream, Error> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = url.clone();
        let (target, _) = Target::of(request)?;
        self.connector.open(&target).await.map(Stream)
    }

    /// Whether TLS is spoken at the host and port of `url`, whatever its scheme and whoever vouches for the
    /// certificate. For whoever got [`Error::NotHttp`] or [`Error::Broken`] from an `http://` URL and wants to say why.
    /// Nothing is sent but a handshake; at most 2 s.
    pub async fn speaks_tls(&self, url: &Uri) -> bool {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = url.clone();
        match Target::of(request) {
            Ok((target, _)) => self.connector.is_tls(&target).await,
            Err(_) => false,
        }
    }

    async fn ask(
        &self,
        connection: &mut Connection,
        ready: Ready,
    ) -> Result<Response<hyper::body::Incoming>, Unanswered> {
        let limit = self.connector.config.answer_timeout;
        match timeout(limit, connection.send(ready)).await {
            Ok(answer) => answer,
            Err(_) => Err(Unanswered::Failed(Error::timeout(Phase::Answer, limit))),
        }
    }
}
