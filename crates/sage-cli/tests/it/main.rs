//! The `sage` command as its users have it: arguments, output, exit codes, signals, and what is left.

mod folder;
mod job;
mod killed;
mod limits;
mod manager;
mod marked;
mod outside;
mod played;
mod run;
mod seen;
mod strangers;
mod terminal;
