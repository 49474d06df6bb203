//! Stores of vectors: the suite that every kind passes, and what each does when things go wrong.

mod conformance;
mod embedded;
mod embedded_faults;
