//! [`Channel`]: frames to and from another process, for Python code.
//!
//! Invariants:
//!  1. Whoever waits for room to write reads meanwhile, unless another thread does: so two sides that write to each
//!     other both get on, however much it is.
//!  2. A wait ends at once when the job is being cancelled, for a channel that belongs to one, and when a signal came
//!     that the interpreter has a handler for.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyEOFError, PyOSError, PyTimeoutError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList};
use sage::{Cancelling, JobBell};

use super::wire::{Frame, Part, Reader, Room, Span, head};
use crate::spec::Seconds;
use crate::thread::{attach, lock};
use crate::waits::{Cancelled, Pause};

/// Frames to and from another process, by a stream socket, which it owns.
#[pyclass(frozen, module = "sage._sage")]
pub(crate) struct Channel {
    socket: OwnedFd,
    /// Taken only by threads that are not attached, as whoever has it may attach.
    reader: Mutex<Reader<Kept>>,
    /// Whether the last wait for a frame was a short one.
    is_brisk: AtomicBool,
    /// Held while a frame is written.
    writing: Mutex<()>,
    /// Woken when a thread that writes has read a frame, which one that waits to read may have missed.
    came: Event,
    job: Option<JobWatch>,
}

/// Tells when the job is being cancelled.
struct JobWatch {
    cancelling: Cancelling,
    bell: JobBell,
}

/// A wait that takes no longer is worth some looks before the thread sleeps.
const SHORT: Duration = Duration::from_micros(50);

/// A descriptor that is readable when it was woken.
struct Event(OwnedFd);

impl Event {
    fn new() -> io::Result<Self> {
        // SAFETY: it makes a descriptor, or says that it cannot.
        match unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: it is new, so that nobody else owns it.
            descriptor => Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) })),
        }
    }
}

impl Event {
    fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the descriptor is open, and the bytes are there. If it is full, it is readable all the same.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Takes note of it.
    fn heed(&self) {
        let mut count = [0u8; 8];
        // SAFETY: the descriptor is open, and there is room.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

/// Why a wait ended without what it waited for.
enum Broken {
    Cancelled,
    Interrupted,
    /// Something else can be read.
    Besides,
    Late,
    End,
    Failed(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => Self::End,
            _ => Self::Failed(error),
        }
    }
}

impl Broken {
    fn raised(self) -> PyErr {
        match self {
            Self::Cancelled => Cancelled::new_err("the job is being cancelled"),
            Self::Interrupted | Self::Besides => PyOSError::new_err("interrupted"),
            Self::Late => PyTimeoutError::new_err("nothing came in time"),
            Self::End => PyEOFError::new_err("the other side has closed the connection"),
            Self::Failed(error) => error.into(),
        }
    }
}

/// What a thread waits by.
#[derive(Clone, Copy)]
struct Patience {
    until: Option<Instant>,
    heeds_cancel: bool,
    /// A descriptor that ends the wait when it can be read; -1 for none.
    besides: RawFd,
}

#[pymethods]
impl Channel {
    /// Takes over the descriptor of a socket. With the `pause` of a replica, its waits end when the job is being
    /// cancelled.
    #[new]
    #[pyo3(signature = (descriptor, pause=None))]
    fn new(descriptor: RawFd, pause: Option<&Pause>) -> PyResult<Self> {
        // SAFETY: the caller hands it over.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let job = match pause {
            None => None,
            Some(pause) => {
                let cancelling = pause.cancelling();
                Some(JobWatch { bell: cancelling.bell()?, cancelling })
            }
        };
        Ok(Self {
            socket,
            reader: Mutex::default(),
            is_brisk: AtomicBool::new(false),
            writing: Mutex::new(()),
            came: Event::new()?,
            job,
        })
    }

    /// Writes a frame; waits for room. Parts are what has a contiguous buffer, such as ``bytes``.
    #[pyo3(signature = (kind, id, parts, heeds_cancel=true, timeout=None))]
    fn send(
        &self,
        py: Python<'_>,
        kind: u8,
        id: u64,
        parts: Vec<PyBuffer<u8>>,
        heeds_cancel: bool,
        timeout: Option<Seconds>,
    ) -> PyResult<()> {
        if parts.iter().any(|part| !part.is_c_contiguous()) {
            return Err(PyValueError::new_err("a part of a frame is not contiguous"));
        }
        let spans = parts.iter().map(|part| Span { length: part.len_bytes(), is_writable: !part.readonly() });
        let head = head(kind, id, &spans.collect::<Vec<_>>()).map_err(PyValueError::new_err)?;
        let mut pieces = vec![Piece { start: head.as_ptr(), length: head.len() }];
        pieces.extend(parts.iter().map(|part| Piece { start: part.buf_ptr().cast(), length: part.len_bytes() }));
        let patience = Patience { until: until(timeout), heeds_cancel, besides: -1 };
        self.going_on(py, || {
            let _writing = lock(&self.writing);
            let mut rest = Pieces(&mut pieces);
            // What is begun is written to its end, whatever signals come.
            loop {
                match self.write(&mut rest, patience) {
                    Err(Broken::Interrupted) => {}
                    written => return written,
                }
            }
        })
    }

    /// The next frame: its kind, its id, its first part and a list of the others: ``bytes``, or ``bytearray`` if what
    /// was sent is writable. Raises ``TimeoutError`` after so many seconds, ``EOFError`` at the end, and `Cancelled`.
    #[pyo3(signature = (timeout=None, heeds_cancel=true))]
    fn receive<'py>(&self, py: Python<'py>, timeout: Option<Seconds>, heeds_cancel: bool) -> PyResult<Came<'py>> {
        let patience = Patience { until: until(timeout), heeds_cancel, besides: -1 };
        let frame = self.going_on(py, || self.read(patience))?;
        came(py, frame)
    }

    /// The same, or ``None`` when none is there, nor comes at once where one is awaited.
    fn receive_now<'py>(&self, py: Python<'py>, awaits: bool) -> PyResult<Option<Came<'py>>> {
        match self.going_on(py, || if awaits { self.read_at_once() } else { self.read_now() })? {
            Some(frame) => came(py, frame).map(Some),
            None => Ok(None),
        }
    }

    /// The same, or ``None`` when a descriptor can be read and there is no frame.
    fn receive_beside<'py>(&self, py: Python<'py>, descriptor: RawFd) -> PyResult<Option<Came<'py>>> {
        let patience = Patience { until: None, heeds_cancel: false, besides: descriptor };
        match self.going_on(py, || match self.read(patience) {
            Ok(frame) => Ok(Some(frame)),
            Err(Broken::Besides) => Ok(None),
            Err(broken) => Err(broken),
        })? {
            Some(frame) => came(py, frame).map(Some),
            None => Ok(None),
        }
    }
}

/// A frame for Python: its kind, its id, its first part and the others.
type Came<'py> = (u8, u64, Bound<'py, PyAny>, Bound<'py, PyList>);

fn came(py: Python<'_>, Frame { kind, id, parts }: Frame<Kept>) -> PyResult<Came<'_>> {
    let mut parts = parts.into_iter().map(|part| match part {
        Part::Large(kept) => kept.object.into_bound(py),
        Part::Small(bytes, span) if span.is_writable => PyByteArray::new(py, &bytes).into_any(),
        Part::Small(bytes, _) => PyBytes::new(py, &bytes).into_any(),
    });
    let first = parts.next().unwrap_or_else(|| PyBytes::new(py, &[]).into_any());
    Ok((kind, id, first, PyList::new(py, parts.collect::<Vec<_>>())?))
}

/// A large part, in memory of Python's: nothing has to be copied from there.
struct Kept {
    object: Py<PyAny>,
    start: *mut MaybeUninit<u8>,
    length: usize,
}

// SAFETY: `start` is where the bytes of `object` are, as long as that is there; it is only used by who has this
// exclusively.
unsafe impl Send for Kept {}

impl Room for Kept {
    fn new(length: usize, is_writable: bool) -> io::Result<Self> {
        let made = attach(|py| {
            let size = isize::try_from(length)?;
            // SAFETY: without a source, they give a new object with room for as many bytes, or an exception.
            let (object, start) = unsafe {
                let none = std::ptr::null();
                if is_writable {
                    let made = ffi::PyByteArray_FromStringAndSize(none, size);
                    (Bound::from_owned_ptr_or_err(py, made)?, ffi::PyByteArray_AsString(made))
                } else {
                    let made = ffi::PyBytes_FromStringAndSize(none, size);
                    (Bound::from_owned_ptr_or_err(py, made)?, ffi::PyBytes_AsString(made))
                }
            };
            PyResult::Ok(Self { object: object.unbind(), start: start.cast(), length })
        });
        made.map_err(|raised| io::Error::other(raised.to_string()))
    }

    fn bytes(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: there is so much room, and nobody else has the object before the frame is there.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.length) }
    }
}

fn until(timeout: Option<Seconds>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout.0))
}

/// What is to be written of a buffer that stays where it is meanwhile.
struct Piece {
    start: *const u8,
    length: usize,
}

struct Pieces<'a>(&'a mut Vec<Piece>);

// SAFETY: the buffers are kept by the caller of `send` until it returns, and are only read.
unsafe impl Send for Pieces<'_> {}

impl Channel {
    /// Does something without the interpreter, again whenever a signal's handler has run meanwhile.
    fn going_on<R: Send>(&self, py: Python<'_>, mut act: impl FnMut() -> Result<R, Broken>) -> PyResult<R> {
        struct Here<T>(T);
        // SAFETY: it is called on this thread.
        unsafe impl<T> Send for Here<T> {}
        impl<T: FnMut() -> Result<R, Broken>, R> Here<T> {
            fn call(&mut self) -> Result<R, Broken> {
                (self.0)()
            }
        }
        let mut here = Here(&mut act);
        loop {
            match py.detach(|| here.call()) {
                Err(Broken::Interrupted) => py.check_signals()?,
                done => return done.map_err(Broken::raised),
            }
        }
    }

    fn write(&self, pieces: &mut Pieces<'_>, patience: Patience) -> Result<(), Broken> {
        let rest = &mut *pieces.0;
        loop {
            rest.retain(|piece| piece.length > 0);
            if rest.is_empty() {
                return Ok(());
            }
            let vectors: Vec<libc::iovec> = rest
                .iter()
                .take(MOST_VECTORS)
                .map(|piece| libc::iovec { iov_base: piece.start.cast_mut().cast(), iov_len: piece.length })
                .collect();
            // SAFETY: all zeros is a message without parts; the vectors are of buffers that are alive.
            let written = unsafe {
                let mut message: libc::msghdr = std::mem::zeroed();
                message.msg_iov = vectors.as_ptr().cast_mut();
                message.msg_iovlen = vectors.len() as _;
                libc::sendmsg(self.socket.as_raw_fd(), &message, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
            };
            let Ok(mut written) = usize::try_from(written) else {
                let error = io::Error::last_os_error();
                match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => self.wait(true, patience)?,
                    _ => return Err(error.into()),
                }
                continue;
            };
            for piece in rest.iter_mut() {
                let count = written.min(piece.length);
                // SAFETY: it stays within the buffer, or is one behind its end.
                piece.start = unsafe { piece.start.add(count) };
                piece.length -= count;
                written -= count;
            }
        }
    }

    /// Whether a frame is there, or it is known that none will come: then whoever reads is told why.
    pub(super) fn has_frame(&self) -> bool {
        let mut reader = lock(&self.reader);
        reader.is_ready() || self.fill(&mut reader).is_err() || reader.is_ready()
    }

    /// Can be read when bytes have come.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn read(&self, patience: Patience) -> Result<Frame<Kept>, Broken> {
        loop {
            let found = if self.is_brisk.load(Ordering::Relaxed) { self.read_at_once() } else { self.read_now() };
            if let Some(frame) = found? {
                return Ok(frame);
            }
            let began = Instant::now();
            self.wait(false, patience)?;
            self.is_brisk.store(began.elapsed() < SHORT, Ordering::Relaxed);
        }
    }

    /// Reads what comes within a short while: calls to and fro are quicker than a thread that sleeps is woken. Others
    /// that need the processor have it meanwhile.
    fn read_at_once(&self) -> Result<Option<Frame<Kept>>, Broken> {
        let began = Instant::now();
        loop {
            let found = self.read_now()?;
            if found.is_some() || began.elapsed() > SHORT {
                return Ok(found);
            }
            std::thread::yield_now();
        }
    }

    /// Reads what there is; returns the next frame, if it is there.
    fn read_now(&self) -> Result<Option<Frame<Kept>>, Broken> {
        let mut reader = lock(&self.reader);
        if let Some(frame) = reader.next() {
            return Ok(Some(frame));
        }
        self.fill(&mut reader)?;
        Ok(reader.next())
    }

    /// Reads once, if there is something.
    fn fill(&self, reader: &mut Reader<Kept>) -> Result<(), Broken> {
        let filled = reader.fill(|room| {
            let (start, length) = (room.as_mut_ptr().cast(), room.len());
            // SAFETY: the room is there.
            let count = unsafe { libc::recv(self.socket.as_raw_fd(), start, length, libc::MSG_DONTWAIT) };
            usize::try_from(count).map_err(|_| io::Error::last_os_error())
        });
        match filled {
            Ok(0) => Err(Broken::End),
            Ok(_) => Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until there is something to read, or, if so wanted, room to write; reads what there is in the latter case.
    fn wait(&self, to_write: bool, patience: Patience) -> Result<(), Broken> {
        let job = self.job.as_ref().filter(|_| patience.heeds_cancel);
        if job.is_some_and(|job| job.cancelling.has_begun()) {
            return Err(Broken::Cancelled);
        }
        let left = patience.until.map(|until| until.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(Broken::Late);
        }
        let asked = |fd, events| libc::pollfd { fd, events, revents: 0 };
        let mut asked = [
            asked(self.socket.as_raw_fd(), if to_write { libc::POLLOUT | libc::POLLIN } else { libc::POLLIN }),
            asked(job.map_or(-1, |job| job.bell.as_fd().as_raw_fd()), libc::POLLIN),
            asked(if to_write { -1 } else { self.came.0.as_raw_fd() }, libc::POLLIN),
            asked(patience.besides, libc::POLLIN),
        ];
        // SAFETY: they are there.
        let found = unsafe { libc::poll(asked.as_mut_ptr(), asked.len() as _, left.map_or(-1, in_millis)) };
        if found < 0 {
            let error = io::Error::last_os_error();
            return Err(if error.kind() == io::ErrorKind::Interrupted { Broken::Interrupted } else { error.into() });
        }
        if asked[2].revents != 0 {
            self.came.heed();
        }
        if let Some(job) = job.filter(|_| asked[1].revents != 0) {
            job.bell.silence();
        }
        if asked[3].revents != 0 && asked[0].revents == 0 {
            return Err(Broken::Besides);
        }
        if to_write && asked[0].revents & libc::POLLIN != 0 {
            return match self.reader.try_lock() {
                Ok(mut reader) => {
                    self.fill(&mut reader)?;
                    self.came.wake();
                    Ok(())
                }
                // Another thread reads.
                Err(_) => Ok(()),
            };
        }
        Ok(())
    }
}

/// In one call: the least that a system may allow.
const MOST_VECTORS: usize = 16;

/// For `poll`; a part of one counts as a whole.
fn in_millis(time: Duration) -> i32 {
    i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
}
