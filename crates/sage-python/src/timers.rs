//! `process`: a function that is called for each record of a key and for each of its timers.
//!
//! The engine keeps the states and the timers. A call says what it wants done when it returns: so no Python object
//! refers to what the engine lends for the time of a call.

use std::cell::RefCell;
use std::sync::Arc;

use pyo3::prelude::*;
use sage::{
    BoxError, CloseContext, DataStream, Emit, Fault, KeyContext, OpenContext, Operator, Pipe, Stream, Timer, Timestamp,
};

use crate::Record;
use crate::chain::close;
use crate::error::Raised;
use crate::rows::functions_of;
use crate::steps::{Step, copy};
use crate::thread::{self, attach};
use crate::value::{Key, throw};

thread_local! {
    /// What runs the functions of the task on this thread.
    static RUNNER: RefCell<Option<Py<PyAny>>> = const { RefCell::new(None) };
}

/// The state of a key. A new key has none.
#[derive(Default)]
struct State(Option<Py<PyAny>>);

impl Clone for State {
    /// Of the initial one, which is the only one that the engine clones.
    fn clone(&self) -> Self {
        Self(self.0.as_ref().map(copy))
    }
}

/// Something that a call wants done.
#[derive(FromPyObject)]
enum Wish {
    /// A timer set, or else cancelled, at milliseconds since 1970, by the clock or not.
    Timer(bool, i64, bool),
    /// A record to go on.
    Push((Py<PyAny>,)),
}

/// Calls the method `name` of the runner, and does what it wants done.
fn call(
    name: &str,
    state: &mut State,
    subject: impl FnOnce(Python<'_>) -> PyResult<Bound<'_, PyAny>>,
    cx: &mut KeyContext<'_, '_, Arc<Key>, Record>,
) {
    let called = attach(|py| {
        let call = || {
            let Some(runner) = RUNNER.with_borrow(|runner| runner.as_ref().map(|runner| runner.clone_ref(py))) else {
                return Ok(Vec::new());
            };
            let arguments =
                (state.0.take(), cx.key().object(py)?, cx.now().millis(), cx.watermark().millis(), subject(py)?);
            let result = thread::call(&runner.bind(py).getattr(name)?, &arguments.into_pyobject(py)?, None)?;
            let (kept, wishes, forget): (Py<PyAny>, Vec<Wish>, bool) = result.extract()?;
            state.0 = Some(kept);
            if forget {
                cx.forget();
            }
            Ok(wishes)
        };
        call().map_err(|exception| Raised::new(py, exception, None))
    });
    let timer = |at, by_clock| {
        let at = Timestamp::from_millis(at);
        if by_clock { Timer::Clock(at) } else { Timer::Event(at) }
    };
    for wish in called.unwrap_or_else(|raised| throw(raised)) {
        match wish {
            Wish::Push((value,)) => cx.push(attach(|py| Record::of(value.into_bound(py)))),
            Wish::Timer(true, at, by_clock) => cx.set(timer(at, by_clock)),
            Wish::Timer(false, at, by_clock) => {
                cx.cancel(timer(at, by_clock));
            }
        }
    }
}

/// Stands behind `process`, in its task: makes what runs its functions, and closes it.
struct Functions {
    /// Makes the runner: methods `record` and `timer`, which return the state, what is to be done and whether
    /// the key is to be forgotten, and `close`.
    make: Py<PyAny>,
}

impl Operator for Functions {
    type In = Record;
    type Out = Record;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        let runner = attach(|py| {
            let replica = (cx.replica, cx.parallelism).into_pyobject(py);
            let made = replica.and_then(|replica| thread::call(self.make.bind(py), &replica, None));
            made.map(Bound::unbind).map_err(|exception| Raised::new(py, exception, None))
        })?;
        RUNNER.set(Some(runner));
        Ok(())
    }

    fn process(&mut self, record: Record, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        out.emit(record)
    }

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        attach(|py| RUNNER.take().map_or(Ok(()), |runner| close(py, &runner)))
    }
}

/// Runs the functions of a step on a keyed stream.
pub(crate) fn process<P: Pipe<Out = Record>>(stream: Stream<P>, step: &Step) -> Vec<DataStream<Record>> {
    let make = copy(&step.make);
    let processed = stream.key_by(Record::key).process(
        State::default(),
        |state: &mut State, record: Record, cx: &mut KeyContext<'_, '_, Arc<Key>, Record>| {
            call("record", state, |py| record.value.into_object(py), cx);
        },
        |state: &mut State, timer: Timer, cx: &mut KeyContext<'_, '_, Arc<Key>, Record>| {
            let subject = (timer.moment().millis(), matches!(timer, Timer::Clock(_)));
            call("timer", state, |py| Ok(subject.into_pyobject(py)?.into_any()), cx);
        },
    );
    let processed = processed.parallelism(step.parallelism).named(&*step.name);
    let functions = move || Functions { make: copy(&make) };
    vec![processed.operator(functions).named(functions_of(&step.name)).boxed()]
}
