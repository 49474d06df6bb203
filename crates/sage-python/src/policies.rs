//! Error policies of a step, and the conversion to the engine's policies.

use pyo3::prelude::*;
use sage::{DataStream, DeadLetter, ErrorPolicy, Pipe, Retry, Stream};

use crate::Record;
use crate::call_policy::raised_in;
use crate::error::Raised;
use crate::object::Object;
use crate::rows::functions_of;
use crate::spec::Seconds;
use crate::steps::{Step, timed};
use crate::thread::attach;
use crate::value::Value;

/// How often functions are called again, and after which exceptions.
#[derive(FromPyObject)]
pub(crate) struct Attempts {
    attempts: u32,
    first: Seconds,
    longest: Seconds,
    on: Object,
}

impl Attempts {
    pub(crate) fn retry(&self) -> Retry {
        let classes = self.on.clone();
        let is_one =
            move |raised: &Raised| attach(|py| matches!(raised.exception.matches(py, classes.bind(py)), Ok(true)));
        let retry = Retry::up_to(self.attempts).backoff(self.first.0, self.longest.0);
        retry.when(move |error| raised_in(error).is_some_and(&is_one))
    }
}

/// How many records may be left out.
#[derive(FromPyObject)]
struct Skip {
    at_most: Option<u64>,
    at_most_share: Option<f64>,
}

/// What becomes of records on which functions raise.
#[derive(FromPyObject)]
pub(crate) struct Policy {
    retry: Option<Attempts>,
    skip: Option<Skip>,
    pub(crate) letters: bool,
}

impl Policy {
    /// Whether the first exception fails the job.
    pub(crate) fn is_none(&self) -> bool {
        self.retry.is_none() && self.skip.is_none() && !self.letters
    }

    /// How often functions are called again; `None` if they are not.
    pub(crate) fn retry(&self) -> Option<Retry> {
        self.retry.as_ref().map(Attempts::retry)
    }

    pub(crate) fn on_error(&self) -> ErrorPolicy {
        let Some(Skip { at_most, at_most_share }) = self.skip else { return ErrorPolicy::fail() };
        let policy = at_most.into_iter().fold(ErrorPolicy::skip(), ErrorPolicy::at_most);
        at_most_share.into_iter().fold(policy, ErrorPolicy::at_most_share)
    }
}

/// What a step of functions gives for a record.
pub(crate) trait Given: Send + Sized + 'static {
    /// Ends a step of functions that give it.
    fn records<P: Pipe<Out = Self>>(stream: Stream<P>, step: &Step) -> DataStream<Record>;
}

impl Given for Record {
    fn records<P: Pipe<Out = Self>>(stream: Stream<P>, step: &Step) -> DataStream<Record> {
        timed(stream, step)
    }
}

impl Given for Vec<Record> {
    fn records<P: Pipe<Out = Self>>(stream: Stream<P>, step: &Step) -> DataStream<Record> {
        stream.flat_map(|records| records).named(functions_of(&step.name)).on_another_thread()
    }
}

/// Ends a step, with what becomes of records on which its functions raise. Its second output are the dead letters, if
/// they are asked for.
pub(crate) fn policed<P>(stream: Stream<P>, step: &Step) -> Vec<DataStream<Record>>
where
    P: sage::Step<In: Into<Record> + Clone, Out: Given>,
{
    if step.policy.is_none() {
        return vec![Given::records(stream, step)];
    }
    let stream = stream.on_error(step.policy.on_error());
    match step.policy.retry() {
        Some(retry) => lettered(stream.retry(retry), step),
        None => lettered(stream, step),
    }
}

fn lettered<P>(stream: Stream<P>, step: &Step) -> Vec<DataStream<Record>>
where
    P: sage::Step<In: Into<Record> + Clone, Out: Given>,
{
    if !step.policy.letters {
        return vec![Given::records(stream, step)];
    }
    let (stream, letters) = stream.dead_letters();
    let name = step.name.clone();
    let letters = letters.map(move |letter| crossing(letter, name.clone()));
    vec![Given::records(stream, step), letters.on_another_thread()]
}

/// What a program sees of a record that failed, at an operator of this name.
fn crossing(letter: DeadLetter<impl Into<Record>>, operator: String) -> Record {
    let DeadLetter { record, replica, position, attempts, errors, time_ms, .. } = letter;
    let record = record.into();
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
