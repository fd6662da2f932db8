//! What every HTTP-based front shares: bodies, origins, credentials, problems, connections that give their socket back.
//!
//! A front built on this crate has one entry point, `handle(Request<B>) -> Response`, and runs unchanged in three
//! places: behind [`serve`] (the broker's own listener), inside an embedding service's router, and over HTTP/2. What
//! differs between them travels with the request as an extension: [`Peer`], and [`Takeover`] and [`Park`] where the
//! connection can be had back from hyper, for good or until there is an answer.
//!
//! ```text
//! TcpStream ─▶ serve ─┬─ HTTP/1 ─▶ handler ─┬─ Response
//!                     │                     ├─ Takeover::claim ─▶ link::Socket   (SSE)
//!                     │                     ├─ Park::wait ─▶ Response ─▶ HTTP/1  (long-polling)
//!                     │                     └─ Upgrade::then ─▶ link::Socket       (WebSocket)
//!                     └─ HTTP/2 ─▶ handler ─┬─ Response, body from pipe()
//!                                           └─ Upgrade::then ─▶ link::Socket       (WebSocket, one stream)
//! ```
//!
//! It leaves to others: paths and methods (each front), what a credential is worth (the `Authenticator`), TLS.

mod chunked;
mod connection;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod problem;
mod request;
#[cfg(feature = "websocket")]
pub mod websocket;

pub use chunked::{Chunk, ChunkedAnswer, Unframed, event_chunk};
pub use connection::{
    Holds, Park, RawHead, RawHeads, Refuser, ServeConfig, Stalled, Takeover, response_head, serve,
    serve_unnamed, upgraded,
};
pub use link::{FREE_BYTES, Intake, IntakeConfig, IntakeStats, Unfinished};
pub use problem::Problem;
pub use request::{
    BadEncoding, BadParameter, Body, BodyError, BoxError, ClientCertificate, Cookies, DEFAULT_BODY_STALL,
    Decoded, Encrypted, Fields, HostPolicy, HttpCredentials, Https, LiveOrigins, OriginPolicy, Paths, Peer,
    PipeIo, Response, TokenPlaces, TokenSources, UnknownCoding, Visitor, X_REQUEST_ID, below, connection_id,
    cookies, credentials, credentials_among, credentials_found, credentials_from, credentials_with,
    parameters, parse_connection_id, percent_decode, pipe, pipe_from, read_body, request_id,
    request_id_among, take_body, user_agent,
};
