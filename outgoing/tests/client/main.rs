//! The client against servers that do what servers do.

mod bounds;
mod kept;
mod server;
mod tls;
