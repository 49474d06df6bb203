//! What tests observe the engine with: a gate that user code waits at, a journal it writes to, a service that
//! does both, and operators, sources and sinks that count their hooks.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sage::{
    BoxError, CloseContext, Emit, Environment, Fault, FinishContext, HookContext, JobReport, OpenContext, Operator,
    RunError, Service, ServiceBuilder, Sink,
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Holds threads back until it is opened, and tells when they have come.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    open: bool,
    arrived: usize,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Waits until the gate is open.
    pub(crate) fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = lock(state);
        state.arrived += 1;
        changed.notify_all();
        drop(changed.wait_while(state, |state| !state.open));
    }

    pub(crate) fn open(&self) {
        let (state, changed) = &*self.0;
        lock(state).open = true;
        changed.notify_all();
    }

    /// Waits until so many threads have come to the gate since it was made.
    pub(crate) fn await_arrivals(&self, count: usize) {
        let (state, changed) = &*self.0;
        let waited = changed.wait_timeout_while(lock(state), PATIENCE, |state| state.arrived < count);
        let arrived = waited.unwrap_or_else(PoisonError::into_inner).0.arrived;
        assert!(arrived >= count, "{arrived} of {count} threads have come to the gate");
    }
}

/// A list of events in the order in which they happened.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Journal {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn note(&self, event: impl fmt::Display) {
        let (events, changed) = &*self.0;
        lock(events).push(event.to_string());
        changed.notify_all();
    }

    pub(crate) fn events(&self) -> Vec<String> {
        lock(&self.0.0).clone()
    }

    pub(crate) fn count(&self, event: &str) -> usize {
        lock(&self.0.0).iter().filter(|noted| *noted == event).count()
    }

    /// Waits until an event has happened so many times.
    #[track_caller]
    pub(crate) fn await_events(&self, event: &str, count: usize) {
        let (events, changed) = &*self.0;
        let missing = |events: &mut Vec<String>| events.iter().filter(|noted| *noted == event).count() < count;
        let waited = changed.wait_timeout_while(lock(events), PATIENCE, missing);
        let events = waited.unwrap_or_else(PoisonError::into_inner).0.clone();
        assert!(self.count(event) >= count, "{count} × `{event}` in {events:?}");
    }

    /// Where an event that happened exactly once stands.
    #[track_caller]
    pub(crate) fn position(&self, event: &str) -> usize {
        let events = self.events();
        assert_eq!(self.count(event), 1, "`{event}` in {events:?}");
        events.iter().position(|noted| noted == event).expect("it was counted")
    }

    /// Fails unless each of these events happened once, in this order.
    #[track_caller]
    pub(crate) fn assert_order(&self, events: &[&str]) {
        for pair in events.windows(2) {
            let (earlier, later) = (self.position(pair[0]), self.position(pair[1]));
            assert!(earlier < later, "`{}` before `{}` in {:?}", pair[0], pair[1], self.events());
        }
    }
}

type HookFn = Arc<dyn Fn(&HookContext) -> Result<(), BoxError> + Send + Sync>;

/// A service that notes every hook in a journal, and does what the test says in each.
#[derive(Clone)]
pub(crate) struct Probe {
    name: &'static str,
    journal: Journal,
    constructor: Option<HookFn>,
    setup: Option<HookFn>,
    stop: Option<HookFn>,
    cleanup: Option<HookFn>,
    drop: Option<Arc<dyn Fn() + Send + Sync>>,
}

macro_rules! hook_setter {
    ($setter:ident, $field:ident) => {
        pub(crate) fn $setter(
            mut self,
            hook: impl Fn(&HookContext) -> Result<(), BoxError> + Send + Sync + 'static,
        ) -> Self {
            self.$field = Some(Arc::new(hook));
            self
        }
    };
}

impl Probe {
    pub(crate) fn new(name: &'static str, journal: &Journal) -> Self {
        let journal = journal.clone();
        Self { name, journal, constructor: None, setup: None, stop: None, cleanup: None, drop: None }
    }

    hook_setter!(in_constructor, constructor);
    hook_setter!(in_setup, setup);
    hook_setter!(in_stop, stop);
    hook_setter!(in_cleanup, cleanup);

    pub(crate) fn in_drop(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.drop = Some(Arc::new(hook));
        self
    }

    pub(crate) fn register(self, env: &Environment) -> ServiceBuilder<Probed> {
        let name = self.name;
        env.register_service_with(name, move |cx| {
            self.journal.note(format_args!("{name} constructor"));
            run(&self.constructor, cx)?;
            Ok(Probed { probe: self.clone() })
        })
    }
}

fn run(hook: &Option<HookFn>, cx: &HookContext) -> Result<(), BoxError> {
    hook.as_ref().map_or(Ok(()), |hook| hook(cx))
}

/// A running [`Probe`].
pub(crate) struct Probed {
    probe: Probe,
}

impl Probed {
    /// Something to call.
    pub(crate) fn touch(&self) {
        self.probe.journal.note(format_args!("{} call", self.probe.name));
    }

    fn hook(&self, which: &str, hook: &Option<HookFn>, cx: &HookContext) -> Result<(), BoxError> {
        self.probe.journal.note(format_args!("{} {which}", self.probe.name));
        let end = run(hook, cx);
        self.probe.journal.note(format_args!("{} {which} ended", self.probe.name));
        end
    }
}

impl Service for Probed {
    fn setup(&self, cx: &HookContext) -> Result<(), BoxError> {
        self.hook("setup", &self.probe.setup, cx)
    }
    fn stop(&self, cx: &HookContext) -> Result<(), BoxError> {
        self.hook("stop", &self.probe.stop, cx)
    }
    fn cleanup(&self, cx: &HookContext) -> Result<(), BoxError> {
        self.hook("cleanup", &self.probe.cleanup, cx)
    }
}

impl Drop for Probed {
    fn drop(&mut self) {
        self.probe.journal.note(format_args!("{} drop", self.probe.name));
        if let Some(hook) = &self.probe.drop {
            hook();
        }
    }
}

/// How often the hooks of an operator or sink have run, over all replicas.
#[derive(Clone, Default)]
pub(crate) struct HookCounts(Arc<[AtomicUsize; 5]>);

impl HookCounts {
    fn add(&self, hook: usize) {
        self.0[hook].fetch_add(1, Ordering::SeqCst);
    }
    fn read(&self, hook: usize) -> usize {
        self.0[hook].load(Ordering::SeqCst)
    }
    pub(crate) fn opened(&self) -> usize {
        self.read(0)
    }
    pub(crate) fn processed(&self) -> usize {
        self.read(1)
    }
    pub(crate) fn finished(&self) -> usize {
        self.read(2)
    }
    pub(crate) fn closed(&self) -> usize {
        self.read(3)
    }
    pub(crate) fn flushed(&self) -> usize {
        self.read(4)
    }
}

/// An operator that passes records on, counts its hooks, and fails where the test says.
#[derive(Clone, Default)]
pub(crate) struct Counting {
    pub(crate) counts: HookCounts,
    pub(crate) journal: Journal,
    pub(crate) fail_in: &'static str,
    pub(crate) panics: bool,
}

impl Counting {
    fn hook(&self, hook: &'static str) -> Result<(), Fault> {
        if self.fail_in != hook {
            return Ok(());
        }
        assert!(!self.panics, "panics in {hook}");
        Err(Fault::Error(format!("fails in {hook}").into()))
    }
}

impl Operator for Counting {
    type In = u64;
    type Out = u64;

    fn open(&mut self, _cx: &OpenContext) -> Result<(), Fault> {
        self.counts.add(0);
        self.hook("open")
    }
    fn process(&mut self, record: u64, out: &mut impl Emit<u64>) -> Result<(), Fault> {
        self.counts.add(1);
        self.hook("process")?;
        out.emit(record)
    }
    fn finish(&mut self, _out: &mut impl Emit<u64>) -> Result<(), Fault> {
        self.counts.add(2);
        self.hook("finish")
    }
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.counts.add(3);
        self.journal.note(format_args!("closed: {}", cx.reason()));
        match self.hook("close") {
            Err(Fault::Error(error)) => Err(error),
            _ => Ok(()),
        }
    }
}

/// A sink that counts its hooks, and fails where the test says.
#[derive(Clone, Default)]
pub(crate) struct CountingSink {
    pub(crate) counts: HookCounts,
    pub(crate) journal: Journal,
    pub(crate) fail_in: &'static str,
    pub(crate) panics: bool,
}

impl CountingSink {
    fn hook(&self, hook: &'static str) -> Result<(), BoxError> {
        if self.fail_in != hook {
            return Ok(());
        }
        assert!(!self.panics, "panics in {hook}");
        Err(format!("fails in {hook}").into())
    }
}

impl Sink for CountingSink {
    type In = u64;

    fn open(&mut self, _cx: &OpenContext) -> Result<(), BoxError> {
        self.counts.add(0);
        self.hook("open")
    }
    fn write(&mut self, _record: u64) -> Result<(), BoxError> {
        self.counts.add(1);
        self.hook("write")
    }
    fn flush(&mut self) -> Result<(), BoxError> {
        assert!(self.counts.opened() > 0, "flushed without having been opened");
        self.counts.add(4);
        self.hook("flush")
    }
    fn finish(&mut self, cx: &FinishContext) -> Result<(), BoxError> {
        self.counts.add(2);
        self.journal.note(format_args!("finished: {}", cx.reason()));
        self.hook("finish")
    }
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        self.counts.add(3);
        self.journal.note(format_args!("closed: {}", cx.reason()));
        self.hook("close")
    }
}

/// The report of a run that did not end well.
#[track_caller]
pub(crate) fn failed(run: Result<JobReport, RunError>) -> JobReport {
    match run {
        Ok(report) => panic!("the job succeeded: {report}"),
        Err(error) => error.report().unwrap_or_else(|| panic!("the job was not started: {error}")).clone(),
    }
}

/// Sorts, to compare as multisets.
pub(crate) fn sorted<T: Ord>(mut records: Vec<T>) -> Vec<T> {
    records.sort();
    records
}
