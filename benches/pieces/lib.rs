//! Criterion benchmarks of the pieces of the hot path. They are in `benches/`; this is what Cargo wants a package to have.
