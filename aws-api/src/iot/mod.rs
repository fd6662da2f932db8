//! The data plane of AWS IoT: one file for each kind of resource, each given what it needs.

mod answer;
mod connections;
mod errors;
mod properties;
mod publish;
mod query;
mod retained;
mod route;
mod shadows;

pub(crate) use connections::{close, one, send, subscriptions};
pub(crate) use publish::{Messages, publish};
pub(crate) use query::Query;
pub(crate) use retained::{list, show};
pub(crate) use route::{Resource, claims};
pub(crate) use shadows::{list_shadows, shadow};
