//! The HTTP API: publish, history, health and metrics
