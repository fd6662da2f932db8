//! Where the embedding service decides, hears and answers.

pub(crate) mod authorizers;
pub(crate) mod listener;
pub(crate) mod policy;
pub(crate) mod service;
