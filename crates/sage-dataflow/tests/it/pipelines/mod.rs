//! What pipelines compute: every operator, source and sink, alone and combined.

mod declaration;
mod operators;
mod properties;
mod running;
mod sinks;
mod sources;
