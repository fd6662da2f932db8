//! Routes with an origin of the test's own behind them, over real sockets.

mod events;
mod idle;
mod passing;
mod publishing;
mod sockets;
mod support;
