//! What pipelines compute: every operator, source and sink, alone and combined.

mod declaration;
mod operators;
mod properties;
mod records;
mod running;
mod sinks;
mod sources;
mod take;
