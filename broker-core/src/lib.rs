//! Channels, filters, lanes, outboxes, log and retained messages: what a broker is in any protocol
