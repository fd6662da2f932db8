//! Clients whose connections are cut in the middle of anything.

#[path = "../support/mod.rs"]
mod support;

mod bayeux;
mod bridge;
mod mqtt;
mod mqtt_client;
mod proxy;
mod sse;
