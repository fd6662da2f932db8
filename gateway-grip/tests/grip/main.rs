//! Routes with an origin of the test's own behind them, over real sockets.

mod events;
mod holds;
mod idle;
mod keys;
mod links;
mod passing;
mod publishing;
mod sockets;
mod streams;
mod support;
mod unreached;
