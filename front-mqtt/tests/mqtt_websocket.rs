//! The tests of `mqtt`, over WebSocket.

#[path = "mqtt/bridge.rs"]
mod bridge;
#[path = "mqtt/client.rs"]
mod client;
#[path = "mqtt/connect.rs"]
mod connect;
#[path = "mqtt/connections.rs"]
mod connections;
#[path = "mqtt/groups.rs"]
mod groups;
#[path = "mqtt/pressure.rs"]
mod pressure;
#[path = "mqtt/publish.rs"]
mod publish;
#[path = "mqtt/real_client.rs"]
mod real_client;
#[path = "mqtt/rights.rs"]
mod rights;
#[path = "mqtt/scopes.rs"]
mod scopes;
#[path = "mqtt/session.rs"]
mod session;
#[path = "mqtt/subscribe.rs"]
mod subscribe;
#[path = "mqtt/support.rs"]
mod support;
#[path = "mqtt/sys.rs"]
mod sys;
#[path = "mqtt/topics.rs"]
mod topics;
#[path = "mqtt/transport.rs"]
mod transport;
#[path = "mqtt/turns.rs"]
mod turns;
#[path = "mqtt/version5.rs"]
mod version5;
#[path = "mqtt/will.rs"]
mod will;

/// What the tests of this binary go over.
const TRANSPORT: transport::Transport = transport::Transport::WebSocket;
