//! Fanwire: an embeddable realtime pub/sub broker.
