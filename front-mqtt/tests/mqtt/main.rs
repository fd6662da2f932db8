//! The front over real sockets: raw bytes for what no client library would send, rumqttc for the rest.

mod client;
mod connect;
mod pressure;
mod publish;
mod real_client;
mod session;
mod subscribe;
mod support;
mod version5;
mod websocket;
mod will;
