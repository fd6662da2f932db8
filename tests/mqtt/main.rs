//! MQTT clients of a whole server.

#[path = "../support/mod.rs"]
mod support;

mod connect;
mod hostile;
mod paho;
mod qos;
mod retained;
mod takeover;
mod websocket;
mod wills;
