//! The binary as whoever starts it sees it: start-up line, exit codes, signals, descriptors.

#[path = "../support/mod.rs"]
mod support;

mod away;
mod backup;
mod bench;
mod claims;
mod descriptors;
mod documentation;
mod durable;
mod embedding;
mod exactly_once;
mod failing_disk;
mod gateway_aws;
mod growth;
mod house;
mod logging;
mod manager;
mod manual;
mod memory;
mod metrics;
mod misconfiguration;
mod operate;
mod own_front;
mod publish;
mod recursion;
mod redeploy;
mod reference;
mod replay_ids;
mod routes;
mod secured_origin;
mod services;
mod show;
mod shutdown;
mod startup;
mod subscribe;
mod surroundings;
mod terminal;
mod tls;
