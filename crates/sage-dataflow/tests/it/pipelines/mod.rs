//! What pipelines compute: every operator, source and sink, alone and combined.

mod ahead;
mod beside;
mod clock;
mod connect;
mod declaration;
mod ends_of_time;
mod enough;
mod failing;
mod feedback;
mod graphs;
mod job_graph;
mod join;
mod keyed;
mod operators;
mod properties;
mod records;
mod running;
mod sinks;
mod sources;
mod steps;
mod take;
mod testing;
mod watermarks;
mod window_join;
mod windows;
mod zip;
