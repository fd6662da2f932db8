//! Whole conversations: a client over a real socket, an origin that is a function, a broker between.

mod channels;
mod life;
mod support;
