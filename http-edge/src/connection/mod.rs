//! The machine: one accepted stream as HTTP/1 or HTTP/2, and how a handler gets the stream back from hyper.

mod answering;
mod config;
mod events;
mod head;
mod held;
mod holds;
mod http1;
mod http2;
mod io;
mod linger;
mod park;
mod preface;
mod raw_head;
mod refuse;
mod response_head;
mod rewound;
mod scan;
mod seldom;
mod serve;
mod stalled;
mod takeover;
mod tunnel;
mod upgrade;
mod watch;
mod watchdog;

pub use config::ServeConfig;
pub use holds::Holds;
pub use park::Park;
pub use raw_head::{RawHead, RawHeads};
pub use refuse::Refuser;
pub use response_head::response_head;
#[cfg(any(test, fuzzing))]
pub(crate) use scan::HeadScan;
pub use serve::{serve, serve_unnamed};
pub use stalled::Stalled;
pub use takeover::Takeover;
pub use upgrade::upgraded;
#[cfg(feature = "websocket")]
pub(crate) use {head::WEBSOCKET, tunnel::Tunnel, upgrade::taken_over};
