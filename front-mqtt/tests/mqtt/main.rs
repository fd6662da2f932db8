//! The front over real sockets: raw bytes for what no client library would send, rumqttc for the rest.
//!
//! `mqtt_websocket` runs the same modules once more, with every packet inside WebSocket frames.

mod bridge;
mod client;
mod connect;
mod connections;
mod exact;
mod groups;
mod kept;
mod kept_will;
mod pressure;
mod publish;
mod real_client;
mod rights;
mod scopes;
mod session;
mod subscribe;
mod support;
mod sys;
mod topics;
mod transport;
mod turns;
mod under_way;
mod version5;
mod websocket;
mod will;

/// What the tests of this binary go over.
const TRANSPORT: transport::Transport = transport::Transport::Tcp;
