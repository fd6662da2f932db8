//! A WebSocket, from the request that opens it to the last frame; feature `websocket`.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use broker_core::Outbox;
//! use http_edge::Response;
//! use http_edge::websocket::{Heard, LINGER, Terms, Upgrade, WebSocket};
//! use websocket::handshake::Options;
//! use websocket::{CloseCode, Limits};
//!
//! fn handle(mut request: http::request::Parts, outbox: Arc<Outbox>, terms: Arc<Terms>) -> Response {
//!     let mut options = Options::default();
//!     options.deflate = true;
//!     let upgrade = match Upgrade::accept(&mut request, &options) {
//!         Ok(upgrade) => upgrade,
//!         Err(refused) => return refused.response("GET"),
//!     };
//!     let deflate = upgrade.deflate();
//!     upgrade.then(move |socket| {
//!         let mut socket = WebSocket::new(socket, outbox, Limits::default(), deflate);
//!         tokio::spawn(async move {
//!             loop {
//!                 match socket.hear(&terms, None).await {
//!                     Heard::Text(text) => println!("{} bytes", text.len()),
//!                     Heard::Binary(_) => {
//!                         socket.close(CloseCode::Unsupported, "messages are text");
//!                         return socket.finish(LINGER).await;
//!                     }
//!                     Heard::Woken | Heard::Due | Heard::Ping(_) | Heard::Pong(_) => {}
//!                     Heard::Ended(ending) if ending.is_told() => return socket.finish(LINGER).await,
//!                     Heard::Ended(_) => return,
//!                 }
//!             }
//!         });
//!     })
//! }
//! ```

mod socket;
mod upgrade;

pub use socket::{Closes, Ending, Heard, Hearing, LINGER, Pings, Terms, WebSocket};
pub use upgrade::{HandOver, NoUpgrade, Upgrade, is_opening};
