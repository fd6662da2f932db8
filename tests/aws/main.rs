//! What clients of AWS ask, of a whole server. What SDKs make of it is in `tests/clients`.

#[path = "../support/mod.rs"]
mod support;

mod data_plane;
mod lives;
mod shadows;

use fanwire::aws::{Config, Front, Signatures};

use crate::support::TestServer;

/// A data plane that asks for no signatures, and tells of clients' lives.
fn events() -> Config {
    let mut aws = Config::default();
    (aws.iot, aws.lifecycle_events, aws.signatures) = (true, true, Signatures::Ignored);
    aws
}

/// A server with that.
async fn unsigned() -> TestServer {
    whole(|_| {}, events()).await
}

async fn with(change: impl FnOnce(&mut Config)) -> TestServer {
    let mut aws = Config::default();
    (aws.iot, aws.lifecycle_events) = (true, true);
    change(&mut aws);
    whole(|_| {}, aws).await
}

/// A server with this front, with a change.
async fn whole(change: impl FnOnce(&mut fanwire::Config), aws: Config) -> TestServer {
    TestServer::with(|config| {
        change(config);
        *config = config.clone().with_front(move |context| Front::new(context, aws.clone()));
    })
    .await
}
