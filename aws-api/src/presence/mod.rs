//! MQTT clients as AWS IoT tells of them: by their identifiers, since when they are there, why they left.

mod clients;
mod events;
mod listener;
mod requests;

pub(crate) use clients::{Clients, Gone};
pub(crate) use events::Events;
pub(crate) use listener::Listener;
pub(crate) use requests::Requests;
