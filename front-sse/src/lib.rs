//! Server-Sent Events
