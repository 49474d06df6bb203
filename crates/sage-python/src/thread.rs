//! The engine's threads in the interpreter: how they attach, and what becomes of them when the interpreter ends.
//!
//! A thread that attaches gets a state of its own from the interpreter, which is thrown away when it detaches: more work
//! than most functions do. A task keeps its thread's from `open` to `close`.
//!
//! When the interpreter ends, the only threads left are those that were abandoned, which are somewhere in a program's code.
//! Invariants:
//!  1. No thread attaches once [`end_attaching`] has returned: one that tries is parked for ever. All attaching goes through [`attach`]
//!     and [`Kept`], none through `Python::attach`.
//!  2. CPython before 3.14 ends a thread that comes out of a blocking call by then with `pthread_exit`, which unwinds its stack;
//!     Rust aborts the process where that reaches a foreign call that cannot unwind. So a program's code, which may block, is
//!     called through [`call`], [`call_method`], [`vectorcall_method`] and [`next`], where the unwinding ends and the thread is parked.

use std::hint::black_box;
use std::mem::transmute;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyTuple};
use sage::OsThread;

static ENDING: AtomicBool = AtomicBool::new(false);
/// How many threads are about to attach.
static ENTERING: AtomicUsize = AtomicUsize::new(0);

/// How long the end of the interpreter waits for threads that are about to attach; what keeps one longer is a program's code.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Whether the interpreter is about to end.
pub(crate) fn is_ending() -> bool {
    ENDING.load(Ordering::SeqCst)
}

/// From here on no thread of the engine attaches, and no job starts. To be called before the interpreter ends, when all jobs are
/// over.
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

/// How long the system may take to let go of a thread that was joined.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Waits until a thread that was joined is off the system's list; `thread` is its native id.
#[pyfunction]
pub(crate) fn await_end(py: Python<'_>, thread: i32) {
    py.detach(|| OsThread::of_number(thread).await_end(LINGER));
}

fn park() -> ! {
    loop {
        std::thread::park();
    }
}

/// A thread that is about to attach.
struct Entering;

impl Entering {
    /// Does not return if the interpreter is about to end. Either `end_attaching` waits for this thread, or this thread sees `ENDING`.
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
    Python::attach(|py| {
        sage::excuse(begun.elapsed());
        drop(entering);
        act(py)
    })
}

/// Keeps the calling thread's state until it is dropped, which must be on the same thread.
pub(crate) struct Kept {
    attached_before: ffi::PyGILState_STATE,
    state: NonNull<ffi::PyThreadState>,
}

// SAFETY: it is a number and a pointer, which mean something on their own thread only. A task makes one when it opens and
// drops it when it closes, and the engine does both on the task's thread.
unsafe impl Send for Kept {}

impl Kept {
    /// Keeps the state of the calling thread, which must not be attached; `None` where it is.
    pub(crate) fn here() -> Option<Self> {
        let _entering = Entering::begin();
        // SAFETY: the interpreter is initialised, as this module was imported, and does not end while a thread is entering.
        let is_attached = unsafe { ffi::PyGILState_Check() } == 1;
        if is_attached {
            return None;
        }
        // SAFETY: as above. The state that is made lives until the matching release in `drop`, since each attaching in between
        // counts up and down.
        let (attached_before, state) = unsafe { (ffi::PyGILState_Ensure(), NonNull::new(ffi::PyEval_SaveThread())) };
        state.map(|state| Self { attached_before, state })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _entering = Entering::begin();
        // SAFETY: `state` is this thread's own, and nobody has released it; the thread is not attached, as `here` left it so,
        // and the interpreter does not end while it is entering.
        unsafe {
            ffi::PyEval_RestoreThread(self.state.as_ptr());
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
    // SAFETY: the same function, of which it is only known that it may unwind. The compiler must not see which one it is, as it
    // is told elsewhere that it cannot.
    let function = black_box(unsafe {
        transmute::<unsafe extern "C" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject, Call>(
            ffi::PyObject_Call,
        )
    });
    let kwargs = kwargs.map_or(std::ptr::null_mut(), |kwargs| kwargs.as_ptr());
    // SAFETY: the thread is attached and the objects are alive; the function returns a new reference, or null and an exception.
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
    // SAFETY: the thread is attached; the function returns a new reference or null, with an exception unless it is the end.
    let item = unsafe { Bound::from_owned_ptr_or_opt(py, guarded(|| function(iterator.as_ptr()))) };
    item.map(Ok).or_else(|| PyErr::take(py).map(Err))
}
