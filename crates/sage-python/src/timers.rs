//! `process`: a function that is called for each record of a key and for each of its timers.
//!
//! The engine keeps the states and the timers. A call says what it wants done when it returns: so no Python object
//! refers to what the engine lends for the time of a call.

use std::sync::Arc;

use pyo3::prelude::*;
use sage::{
    BoxError, CloseContext, DataStream, KeyContext, OpenContext, Pipe, ProcessFunction, Stream, Timer, Timestamp,
};

use crate::Record;
use crate::error::attempt;
use crate::object::Object;
use crate::policies::policed;
use crate::steps::Step;
use crate::thread::{attach, call, call_method};
use crate::value::Key;
use crate::waits::Cancelled;

/// The state of a key. A new key has none.
#[derive(Clone, Default)]
struct State(Option<Object>);

/// Something that a call wants done.
#[derive(FromPyObject)]
enum Wish {
    /// A timer set, or else cancelled, at milliseconds since 1970, by the clock or not.
    Timer(bool, i64, bool),
    /// A record to go on.
    Push((Py<PyAny>,)),
}

/// Runs the functions of a step.
#[derive(Clone)]
struct Runner {
    /// Makes the object that has the methods `record` and `timer`, which return the state, what is to be done and
    /// whether the key is to be forgotten, and `close`.
    make: Object,
    made: Option<Object>,
}

type Cx<'a, 'o> = KeyContext<'a, 'o, Arc<Key>, Record>;

impl Runner {
    /// Calls the method `name`, and does what it wants done. A state that it raised over stays as it is.
    fn call(
        &self,
        name: &str,
        state: &mut State,
        subject: impl FnOnce(Python<'_>) -> PyResult<Bound<'_, PyAny>>,
        cx: &mut Cx<'_, '_>,
    ) -> Result<(), BoxError> {
        let wishes = attempt(|py| {
            let Some(made) = &self.made else { return Ok(Vec::new()) };
            let kept = state.0.as_ref().map(|state| state.clone_ref(py));
            let arguments = (kept, cx.key().object(py)?, cx.now().millis(), cx.watermark().millis(), subject(py)?);
            let result = match call(&made.bind(py).getattr(name)?, &arguments.into_pyobject(py)?, None) {
                Err(exception) if exception.is_instance_of::<Cancelled>(py) => return Ok(Vec::new()),
                result => result?,
            };
            let (kept, wishes, forget): (Object, Vec<Wish>, bool) = result.extract()?;
            state.0 = Some(kept);
            if forget {
                cx.forget();
            }
            Ok(wishes)
        })?;
        let timer = |at, by_clock| {
            let at = Timestamp::from_millis(at);
            if by_clock { Timer::Clock(at) } else { Timer::Event(at) }
        };
        for wish in wishes {
            match wish {
                Wish::Push((value,)) => cx.push(attach(|py| Record::of(value.into_bound(py)))),
                Wish::Timer(true, at, by_clock) => cx.set(timer(at, by_clock)),
                Wish::Timer(false, at, by_clock) => {
                    cx.cancel(timer(at, by_clock));
                }
            }
        }
        Ok(())
    }
}

impl ProcessFunction<Record, Arc<Key>, State, Record> for Runner {
    fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
        self.made = Some(attempt(|py| self.make.made_pausing(py, cx).map(Object::from))?);
        Ok(())
    }

    fn on_record(&mut self, state: &mut State, record: Record, cx: &mut Cx<'_, '_>) -> Result<(), BoxError> {
        self.call("record", state, |py| record.value.into_object(py), cx)
    }

    fn on_timer(&mut self, state: &mut State, timer: Timer, cx: &mut Cx<'_, '_>) -> Result<(), BoxError> {
        let subject = (timer.moment().millis(), matches!(timer, Timer::Clock(_)));
        self.call("timer", state, |py| Ok(subject.into_pyobject(py)?.into_any()), cx)
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        let Some(made) = self.made.take() else { return Ok(()) };
        Ok(attempt(|py| call_method(py, &made, "close").map(drop))?)
    }
}

/// Runs the functions of a step on a keyed stream.
pub(crate) fn process<P: Pipe<Out = Record>>(stream: Stream<P>, step: &Step) -> Vec<DataStream<Record>> {
    let runner = Runner { make: step.make.clone(), made: None };
    let processed = stream.key_by(Record::key).process_with(State::default(), runner);
    policed(processed.parallelism(step.parallelism).named(&*step.name), step)
}
