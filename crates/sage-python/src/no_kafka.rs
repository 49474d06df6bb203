//! Replaces `kafka.rs` in a build without the feature `kafka`: it refuses a plan with a topic.

use std::convert::Infallible;

use pyo3::prelude::*;
use sage::{DataStream, Environment, Pipe, Stream};

use crate::Record;
use crate::error::SubmitError;
use crate::spec::Spec;
use crate::steps::Step;

/// Nothing to be committed.
#[derive(Default)]
pub(crate) struct Offsets;

impl Offsets {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn commit(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

pub(crate) fn source(_: &Environment, step: &Step, _: &Spec, _: &Offsets) -> PyResult<DataStream<Record>> {
    Err(refused(step))
}

pub(crate) fn sink<P: Pipe<Out = Record>>(_: Stream<P>, step: &Step, _: &Spec) -> PyResult<()> {
    Err(refused(step))
}

fn refused(step: &Step) -> PyErr {
    SubmitError::new_err(format!("`{}` needs Kafka, which this build of the package leaves out", step.name))
}
