//! What becomes of records on which the functions of a step raise: the policies of the engine, as a plan has them.

use pyo3::prelude::*;
use sage::{BoxError, DeadLetter, ErrorPolicy, Retry};

use crate::Record;
use crate::error::Raised;
use crate::steps::Step;
use crate::thread::attach;
use crate::value::Value;

/// What becomes of records on which functions raise.
pub(crate) struct Policy {
    pub(crate) retry: Option<Retry>,
    pub(crate) on_error: ErrorPolicy,
    pub(crate) letters: bool,
}

impl Policy {
    /// How often functions are called again; `None` if they are not.
    pub(crate) fn retry(py: Python<'_>, step: &Step) -> PyResult<Option<Retry>> {
        let mut retry = step.option(py, "attempts")?.map(Retry::up_to);
        if let (Some(first), Some(longest)) = (step.seconds(py, "first_wait")?, step.seconds(py, "longest_wait")?) {
            retry = retry.map(|retry| retry.backoff(first, longest));
        }
        if let Some(classes) = step.options.bind(py).get_item("retry_on")? {
            let classes = classes.unbind();
            let is_one =
                move |raised: &Raised| attach(|py| matches!(raised.exception.matches(py, classes.bind(py)), Ok(true)));
            retry = retry.map(|retry| retry.when(move |error: &BoxError| error.downcast_ref().is_some_and(&is_one)));
        }
        Ok(retry)
    }

    /// `None` if the first exception fails the job.
    pub(crate) fn of(py: Python<'_>, step: &Step) -> PyResult<Option<Self>> {
        let retry = Self::retry(py, step)?;
        let skips = step.option::<bool>(py, "skip")?.is_some();
        let mut on_error = if skips { ErrorPolicy::skip() } else { ErrorPolicy::fail() };
        if let Some(records) = step.option(py, "at_most")? {
            on_error = on_error.at_most(records);
        }
        if let Some(share) = step.option(py, "at_most_share")? {
            on_error = on_error.at_most_share(share);
        }
        let letters = step.option::<bool>(py, "letters")?.is_some();
        Ok((retry.is_some() || skips || letters).then_some(Self { retry, on_error, letters }))
    }
}

/// Ends a step whose records may be set apart when they fail. A macro, as the types of the streams have no names here.
macro_rules! lettered {
    ($py:expr, $stream:expr, $step:expr, $letters:expr) => {
        if $letters {
            let (stream, letters) = $stream.dead_letters();
            Ok(vec![$crate::steps::timed($py, stream, $step)?, letters.map($crate::policies::letter).boxed()])
        } else {
            Ok(vec![$crate::steps::timed($py, $stream, $step)?])
        }
    };
}

pub(crate) use lettered;

/// Ends a step, with what becomes of records on which its functions raise.
macro_rules! policed {
    ($py:expr, $stream:expr, $step:expr) => {
        match $crate::policies::Policy::of($py, $step)? {
            None => Ok(vec![$crate::steps::timed($py, $stream, $step)?]),
            Some($crate::policies::Policy { retry: Some(retry), on_error, letters }) => {
                $crate::policies::lettered!($py, $stream.on_error(on_error).retry(retry), $step, letters)
            }
            Some($crate::policies::Policy { on_error, letters, .. }) => {
                $crate::policies::lettered!($py, $stream.on_error(on_error), $step, letters)
            }
        }
    };
}

pub(crate) use policed;

/// What a program sees of a record that failed.
pub(crate) fn letter(letter: DeadLetter<Record>) -> Record {
    let DeadLetter { record, operator, replica, position, attempts, errors, time_ms } = letter;
    let when = record.time;
    let text = |text: String| Value::Text(text.into());
    let number = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    let fields = [
        record.value,
        text(operator),
        number(replica as u64),
        number(position),
        number(u64::from(attempts)),
        Value::List(errors.into_iter().map(text).collect()),
        Value::Float(time_ms as f64 / 1000.0),
    ];
    Record { time: when, ..Record::from(Value::Tuple(fields.into())) }
}
