//! Random graphs against a reference that interprets them on one thread.
//!
//! A [`plan`] is a tree of transformations, as data. [`build`] declares streams of it, with random parallelism, blocks
//! and delays; [`reference`] computes the same with vectors. Both must give the same records. What a multiset cannot
//! show has a test of its own: that order is kept per key ([`order`]), that a watermark gets through while the sources
//! are open, and which records are late ([`late`], by an oracle that starts anew for each record).
//!
//! `SAGE_GRAPHS=10000 cargo nextest run -p sage-dataflow graphs` tries more of them than the default of 1,000. A graph
//! that fails is made smaller ([`tree`]), and printed with the variables that make it again ([`runner`]).

mod build;
mod late;
mod order;
mod plan;
mod reference;
mod runner;
mod tests;
mod timely;
mod tree;
