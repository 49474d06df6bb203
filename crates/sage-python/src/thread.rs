//! A thread's place in the interpreter, kept while a task runs.
//!
//! A thread that attaches gets a state of its own from the interpreter, which is thrown away when it detaches: more work
//! than most functions do. A task keeps its thread's from `open` to `close`.

use std::ptr::NonNull;

use pyo3::ffi;

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
        // SAFETY: the interpreter is initialised, as this module was imported, and has not begun to end: it waits for all jobs.
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
        // SAFETY: `state` is this thread's own, and nobody has released it; the thread is not attached, as `here` left it so.
        unsafe {
            ffi::PyEval_RestoreThread(self.state.as_ptr());
            ffi::PyGILState_Release(self.attached_before);
        }
    }
}
