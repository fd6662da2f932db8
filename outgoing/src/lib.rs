//! HTTP requests to others: the key sets of issuers, a running server for `fanwire pub` and `sub`, and whatever else
//! calls out. What it leaves to its users: what is asked, whether to try again, and what an answer means.
//!
//! ```text
//! Request ─▶ Client ─▶ a turn at the host ─▶ a kept connection ──────────────────▶ Response<Body>
//!                                        └─▶ resolve ─▶ policy ─▶ TCP ─▶ TLS ─▶ ┘      │
//!                                                      kept for the next ◀── read to its end
//! ```
//!
//! Every phase has its time ([`Config`]), redirects are never followed, and a request is sent once: it goes on a second
//! connection only if the first one gave it back untouched. An [`Error`] says which phase failed and what to do.
//!
//! ```no_run
//! # async fn run() -> Result<(), outgoing::Error> {
//! use std::time::Duration;
//!
//! let client = outgoing::Client::new(outgoing::Config::default());
//! let request = http::Request::get("https://login.example/keys").body(bytes::Bytes::new()).expect("a request");
//! let answer = client.fetch(request, 1 << 20, Duration::from_secs(5)).await?;
//! println!("{}: {} bytes", answer.status(), answer.body().len());
//! # Ok(())
//! # }
//! ```
//!
//! It needs a tokio runtime with IO and time.

mod body;
mod client;
mod config;
mod connect;
mod connection;
mod dial;
mod error;
pub mod events;
mod explain;
mod payload;
mod pool;
mod proxy;
mod target;
mod trust;

pub use body::Body;
pub use client::{Client, Unsent};
pub use config::{AddressPolicy, Config, Proxies, Resolve, Resolved, Versions};
pub use connection::Stream;
pub use error::{Error, Phase, TlsProblem};
pub use payload::Payload;
pub use trust::{Authorities, AuthoritiesError, Identity, Trust};
