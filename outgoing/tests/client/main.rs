//! The client against servers that do what servers do.

mod bounds;
mod kept;
mod passing;
mod server;
mod tls;
