//! The engine's threads in the interpreter: how they attach, and what becomes of them when the interpreter ends.
//!
//! A thread that attaches gets a state of its own from the interpreter, which is thrown away when it detaches: more
//! work than most functions do. A thread that works for a job keeps its own from when it first attaches: see [`Scope`].
//!
//! When the interpreter ends, the only threads left are those that were abandoned, which are somewhere in a program's
//! code. Invariants:
//!  1. No thread attaches once [`end_attaching`] has returned: one that tries is parked for ever. All attaching goes
//!     through [`attach`] and [`Scope`], none through `Python::attach`.
//!  2. CPython before 3.14 ends a thread that comes out of a blocking call by then with `pthread_exit`, which unwinds
//!     its stack; Rust aborts the process where that reaches a foreign call that cannot unwind. So a program's code,
//!     which may block, is called through [`call`], [`call_method`], [`vectorcall_method`] and [`next`], where the
//!     unwinding ends and the thread is parked.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::mem::transmute;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyTuple};
use sage::OsThread;

use crate::cutter::{Cutter, Loop};

static ENDING: AtomicBool = AtomicBool::new(false);
/// How many threads are about to attach.
static ENTERING: AtomicUsize = AtomicUsize::new(0);

/// How long the end of the interpreter waits for threads that are about to attach; what keeps one longer is a program's
/// code.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Whether the interpreter is about to end.
pub(crate) fn is_ending() -> bool {
    ENDING.load(Ordering::SeqCst)
}

/// From here on no thread of the engine attaches, and no job starts. To be called before the interpreter ends, when all
/// jobs are over.
#[pyfunction]
pub(crate) fn end_attaching(py: Python<'_>) {
    ENDING.store(true, Ordering::SeqCst);
    py.detach(|| {
        let deadline = Instant::now() + LONGEST_WAIT;
        while ENTERING.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            std::thread::yield_now();
        }
    });
}

/// Waits until a thread that was joined is off the system's list; `thread` is its native id.
#[pyfunction]
pub(crate) fn await_end(py: Python<'_>, thread: i32) {
    py.detach(|| OsThread::of_number(thread).await_end(OsThread::LINGER));
}

/// Locks, also where a thread has panicked: what is behind these locks is whole between any two lines.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn park() -> ! {
    loop {
        std::thread::park();
    }
}

/// A thread that is about to attach.
struct Entering;

impl Entering {
    /// Does not return if the interpreter is about to end. Either `end_attaching` waits for this thread, or this thread
    /// sees `ENDING`.
    fn begin() -> Self {
        ENTERING.fetch_add(1, Ordering::SeqCst);
        let entering = Self;
        if is_ending() {
            drop(entering);
            park();
        }
        entering
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        ENTERING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How long the calling thread has waited to be attached so far: while other threads had the interpreter.
pub(crate) use sage::excused as waited;

/// Attaches the calling thread, which belongs to the engine, for as long as `act` takes.
pub(crate) fn attach<R>(act: impl for<'py> FnOnce(Python<'py>) -> R) -> R {
    let entering = Entering::begin();
    let begun = Instant::now();
    keep_state();
    Python::attach(|py| {
        sage::excuse(begun.elapsed());
        drop(entering);
        act(py)
    })
}

/// What the threads of one job have in common in the interpreter.
pub(crate) struct Scope {
    /// The context variables of whoever submitted the job. Each thread has a copy.
    context: Py<PyAny>,
    /// Called when a thread first attaches, and when it has nothing more to do.
    begin: Py<PyAny>,
    end: Py<PyAny>,
    /// How large a thread's stack is.
    pub(crate) stack_bytes: usize,
    /// Ends loops that take long.
    pub(crate) cutter: Cutter,
}

impl Scope {
    /// For a job that the calling thread submits.
    pub(crate) fn new(py: Python<'_>) -> PyResult<Arc<Self>> {
        let context = py.import("contextvars")?.call_method0("copy_context")?.unbind();
        let threads = py.import("sage._own_threads")?;
        let (begin, end) = (threads.getattr("begin")?.unbind(), threads.getattr("end")?.unbind());
        let chosen: usize = py.import("threading")?.call_method0("stack_size")?.extract()?;
        let stack_bytes = if chosen > 0 { chosen } else { default_stack_bytes() };
        Ok(Arc::new(Self { context, begin, end, stack_bytes, cutter: Cutter::default() }))
    }

    /// The calling thread works for this job until what is returned is dropped. It attaches when it first needs to.
    pub(crate) fn enter(self: &Arc<Self>) -> Within {
        THREAD.set(Some(Thread { scope: self.clone(), kept: None, watched: None }));
        NEEDS_STATE.set(true);
        Within
    }
}

/// As large as the stacks of the threads that Python itself starts, which leaves that to the system.
fn default_stack_bytes() -> usize {
    // SAFETY: the attributes are initialised before they are read, and destroyed once.
    unsafe {
        let mut attributes = std::mem::zeroed();
        if libc::pthread_attr_init(&mut attributes) != 0 {
            return FALLBACK_STACK_BYTES;
        }
        let mut bytes = 0;
        let got = libc::pthread_attr_getstacksize(&attributes, &mut bytes);
        libc::pthread_attr_destroy(&mut attributes);
        if got == 0 { bytes } else { FALLBACK_STACK_BYTES }
    }
}

const FALLBACK_STACK_BYTES: usize = 8 << 20;

/// What this thread works for.
struct Thread {
    scope: Arc<Scope>,
    kept: Option<Kept>,
    watched: Option<Arc<Loop>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.watched.iter().for_each(|watched| self.scope.cutter.forget(watched));
    }
}

thread_local! {
    static THREAD: RefCell<Option<Thread>> = const { RefCell::new(None) };
    /// Whether it works for a job and has no state of its own yet.
    static NEEDS_STATE: Cell<bool> = const { Cell::new(false) };
}

/// Makes the calling thread's state if it is to have one: see [`Scope::enter`].
fn keep_state() {
    // Not while the cell is borrowed: what runs when a thread begins may attach as well.
    if NEEDS_STATE.replace(false)
        && let Some(scope) = THREAD.with_borrow(|thread| thread.as_ref().map(|thread| thread.scope.clone()))
    {
        let kept = Kept::begin(scope);
        THREAD.with_borrow_mut(|thread| {
            if let Some(thread) = thread {
                thread.kept = kept;
            }
        });
    }
}

/// What loops of the calling thread belong to.
pub(crate) fn watched() -> Arc<Loop> {
    THREAD.with_borrow_mut(|thread| match thread {
        Some(Thread { scope, watched, .. }) => watched.get_or_insert_with(|| scope.cutter.watch()).clone(),
        None => Arc::default(),
    })
}

/// Until it is dropped, on the same thread, that works for a job.
pub(crate) struct Within;

impl Drop for Within {
    fn drop(&mut self) {
        NEEDS_STATE.set(false);
        let thread = THREAD.take();
        drop(thread);
    }
}

/// Keeps the calling thread's state, with its copy of the context, until it is dropped on the same thread.
struct Kept {
    scope: Arc<Scope>,
    context: Option<Py<PyAny>>,
    attached_before: ffi::PyGILState_STATE,
    state: NonNull<ffi::PyThreadState>,
}

impl Kept {
    /// Keeps the state of the calling thread; `None` where it is attached already.
    fn begin(scope: Arc<Scope>) -> Option<Self> {
        // SAFETY: the interpreter is initialised, as this module was imported, and does not end while a thread is
        // entering.
        if unsafe { ffi::PyGILState_Check() } == 1 {
            return None;
        }
        // SAFETY: as above. The state that is made lives until the matching release in `drop`, since each attaching in
        // between counts up and down.
        let attached_before = unsafe { ffi::PyGILState_Ensure() };
        // SAFETY: the thread is attached, by the line before.
        let context = scope.begin(unsafe { Python::assume_attached() });
        // SAFETY: as above; the state is this thread's own.
        let state = NonNull::new(unsafe { ffi::PyEval_SaveThread() })?;
        Some(Self { scope, context, attached_before, state })
    }
}

impl Scope {
    /// Begins the calling thread; returns its context, which has been entered.
    fn begin(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let enter = || {
            let context = self.context.bind(py).call_method0("copy")?;
            // SAFETY: the thread is attached, and it is a context that nobody has entered.
            if unsafe { ffi::PyContext_Enter(context.as_ptr()) } != 0 {
                return Err(PyErr::fetch(py));
            }
            Ok(context.unbind())
        };
        let context = enter().map_err(|error: PyErr| error.write_unraisable(py, None)).ok();
        call_alone(py, &self.begin);
        context
    }

    /// Ends it.
    fn end(&self, py: Python<'_>, context: Option<Py<PyAny>>) {
        call_alone(py, &self.end);
        // SAFETY: the thread is attached, and has entered the context. Where a program has entered another one and not
        // left it, this fails, and the state goes with its thread all the same.
        if context.is_some_and(|context| unsafe { ffi::PyContext_Exit(context.as_ptr()) } != 0) {
            drop(PyErr::take(py));
        }
    }
}

/// Calls something of the package whose exception nobody could be given.
fn call_alone(py: Python<'_>, function: &Py<PyAny>) {
    if let Err(error) = call(function.bind(py), &PyTuple::empty(py), None) {
        error.write_unraisable(py, Some(function.bind(py)));
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _entering = Entering::begin();
        // SAFETY: `state` is this thread's own, and nobody has released it; the thread is not attached, as `begin` left
        // it so, and the interpreter does not end while it is entering.
        unsafe {
            ffi::PyEval_RestoreThread(self.state.as_ptr());
            self.scope.end(Python::assume_attached(), self.context.take());
            ffi::PyGILState_Release(self.attached_before);
        }
    }
}

/// Parks the thread when its stack is unwound to here.
struct ParkedByUnwinding;

impl Drop for ParkedByUnwinding {
    fn drop(&mut self) {
        park();
    }
}

/// Calls a program's code. No Rust panic comes out of it, as those below it are Python exceptions by then.
fn guarded<R>(code: impl FnOnce() -> R) -> R {
    let unwinding = ParkedByUnwinding;
    let result = code();
    std::mem::forget(unwinding);
    result
}

type Call = unsafe extern "C-unwind" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject;
type CallMethod =
    unsafe extern "C-unwind" fn(*mut PyObject, *const *mut PyObject, usize, *mut PyObject) -> *mut PyObject;
type Next = unsafe extern "C-unwind" fn(*mut PyObject) -> *mut PyObject;

/// Calls an object.
pub(crate) fn call<'py>(
    object: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the same function, of which it is only known that it may unwind. The compiler must not see which one it
    // is, as it is told elsewhere that it cannot.
    let function = black_box(unsafe {
        transmute::<unsafe extern "C" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject, Call>(
            ffi::PyObject_Call,
        )
    });
    let kwargs = kwargs.map_or(std::ptr::null_mut(), |kwargs| kwargs.as_ptr());
    // SAFETY: the thread is attached and the objects are alive; the function returns a new reference, or null and an
    // exception.
    unsafe { Bound::from_owned_ptr_or_err(object.py(), guarded(|| function(object.as_ptr(), args.as_ptr(), kwargs))) }
}

/// Calls a method without arguments.
pub(crate) fn call_method<'py>(py: Python<'py>, object: &Py<PyAny>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    call(&object.bind(py).getattr(name)?, &PyTuple::empty(py), None)
}

/// As `PyObject_VectorcallMethod`.
///
/// # Safety
/// The thread is attached, and the arguments are as that function wants them.
#[inline]
pub(crate) unsafe fn vectorcall_method(
    name: *mut PyObject,
    args: *const *mut PyObject,
    nargsf: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: as in `call`.
    let function = black_box(unsafe {
        transmute::<
            unsafe extern "C" fn(*mut PyObject, *const *mut PyObject, usize, *mut PyObject) -> *mut PyObject,
            CallMethod,
        >(ffi::PyObject_VectorcallMethod)
    });
    // SAFETY: by what the caller promises.
    guarded(|| unsafe { function(name, args, nargsf, names) })
}

/// Asks an iterator for its next item.
pub(crate) fn next<'py>(iterator: &Bound<'py, PyIterator>) -> Option<PyResult<Bound<'py, PyAny>>> {
    let py = iterator.py();
    // SAFETY: as in `call`.
    let function =
        black_box(unsafe { transmute::<unsafe extern "C" fn(*mut PyObject) -> *mut PyObject, Next>(ffi::PyIter_Next) });
    // SAFETY: the thread is attached; the function returns a new reference or null, with an exception unless it is the
    // end.
    let item = unsafe { Bound::from_owned_ptr_or_opt(py, guarded(|| function(iterator.as_ptr()))) };
    item.map(Ok).or_else(|| PyErr::take(py).map(Err))
}
