//! What every HTTP-based front shares: bodies, origins, credentials, problems, connections that give their socket back.
//!
//! A front built on this crate has one entry point, `handle(Request<B>) -> Response`, and runs unchanged in three
//! places: behind [`serve`] (the broker's own listener), inside an embedding service's router, and over HTTP/2.
//! What differs between them travels with the request as an extension: [`Peer`], and [`Takeover`] and [`Park`] where the
//! connection can be had back from hyper, for good or until there is an answer.
//!
//! ```text
//! TcpStream ─▶ serve ─┬─ HTTP/1 ─▶ handler ─┬─ Response
//!                     │                     ├─ Takeover::claim ─▶ link::Socket   (SSE)
//!                     │                     ├─ Park::wait ─▶ Response ─▶ HTTP/1  (long-polling)
//!                     │                     └─ 101 ─▶ upgraded() ─▶ link::Socket (WebSocket)
//!                     └─ h2c ────▶ handler ─── Response, body from pipe()
//! ```
//!
//! It leaves to others: paths and methods (each front), what a credential is worth (the `Authenticator`), TLS.

mod body;
mod coding;
mod connection_id;
mod cookies;
mod credentials;
mod fields;
mod head;
mod held;
mod holds;
mod host;
mod io;
mod origin;
mod park;
mod pipe;
mod problem;
mod query;
mod refuse;
mod request_id;
mod rewound;
mod seldom;
mod serve;
mod stalled;
mod takeover;
mod upgrade;

pub use body::{Body, BodyError, DEFAULT_BODY_STALL, read_body, take_body};
pub use coding::{Decoded, UnknownCoding};
pub use connection_id::{connection_id, parse_connection_id};
pub use cookies::cookies;
pub use credentials::{
    HttpCredentials, TokenPlaces, TokenSources, credentials, credentials_among, credentials_found,
    credentials_from,
};
pub use fields::Fields;
pub use holds::Holds;
pub use host::HostPolicy;
pub use link::{FREE_BYTES, Intake, IntakeConfig, IntakeStats, Unfinished};
pub use origin::{Cookies, LiveOrigins, OriginPolicy};
pub use park::Park;
pub use pipe::{PipeIo, pipe, pipe_from};
pub use problem::Problem;
pub use query::{BadEncoding, BadParameter, parameters, percent_decode};
pub use refuse::Refuser;
pub use request_id::{X_REQUEST_ID, request_id, request_id_among};
pub use serve::{ServeConfig, serve, serve_unnamed};
pub use stalled::Stalled;
pub use takeover::{Takeover, response_head};
pub use upgrade::upgraded;

/// Any error that a body or an upgrade can end with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What every handler answers with.
pub type Response = http::Response<Body>;

/// The address the connection came from, as a request extension. [`serve`] sets it; an embedding service may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer(pub std::net::SocketAddr);
