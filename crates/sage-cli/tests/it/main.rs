//! The `sage` command as its users have it: arguments, output, exit codes, signals, and what is left.

mod folder;
mod job;
mod marked;
mod run;
mod terminal;
