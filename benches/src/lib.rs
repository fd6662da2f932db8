//! Criterion benches of the hot path; `benches/load` beside it is the load generator.
