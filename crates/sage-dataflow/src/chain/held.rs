//! The outputs of an operator, held back until it is done with its record.

use super::fault::{Fault, Stop};
use super::stage::{Emit, Outlet};
use crate::control::{Control, JobControl};

/// A record, and the way it leaves an operator by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves<M, S> {
    /// By its stream.
    Main(M),
    /// By its side stream.
    Side(S),
}

/// Keeps what an operator emits. That may go on for long, or for ever, so that a cancel is looked for.
pub(super) struct Held<'a, M, S> {
    pub(super) records: Vec<Leaves<M, S>>,
    control: &'a JobControl,
}

impl<'a, M, S> Held<'a, M, S> {
    pub(super) fn new(control: &'a JobControl) -> Self {
        Self { records: Vec::new(), control }
    }
}

impl<M, S> Emit<M> for Held<'_, M, S> {
    fn emit(&mut self, record: M) -> Result<(), Fault> {
        self.look()?;
        self.records.push(Leaves::Main(record));
        Ok(())
    }

    fn look(&mut self) -> Result<(), Fault> {
        match self.control.load() {
            Control::Cancel => Err(Stop::Cancelled.into()),
            _ => Ok(()),
        }
    }
}

impl<M, S> Outlet<M, S> for Held<'_, M, S> {
    fn emit_side(&mut self, record: S) -> Result<(), Fault> {
        self.look()?;
        self.records.push(Leaves::Side(record));
        Ok(())
    }
}
