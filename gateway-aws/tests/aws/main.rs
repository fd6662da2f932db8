//! A gateway with functions behind it and WebSocket clients before it.

mod connect;
mod connections;
mod life;
mod messages;
mod support;
