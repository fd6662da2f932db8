//! The front from outside: raw HTTP and WebSocket against a server on port 0.

mod ack;
mod bounds;
mod browser;
mod connect;
mod connections;
mod delivery;
mod expiry;
mod handshake;
mod hooks;
mod http;
mod options;
mod replay;
mod rights;
mod slow;
mod subscribe;
mod support;
mod websocket;
