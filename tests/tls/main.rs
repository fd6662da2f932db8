//! TLS on the server's own listeners, and proxies in front of them.

#[path = "../support/mod.rs"]
mod support;

mod behind;
mod certificates;
mod clients;
mod crowded;
mod proxies;
mod recipes;
mod served;
mod websockets;
