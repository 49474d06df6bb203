//! The operators that users write: the [`Operator`] trait, and how the engine runs one.

use std::convert::Infallible;
use std::os::fd::BorrowedFd;

use super::context::{CloseContext, OpenContext};
use super::fault::Fault;
use super::signal::Signal;
use super::stage::{Emit, Flags, Outlet, Stage};
use crate::BoxError;

/// One step of a chain: takes records, emits records.
///
/// An operator that is `Clone` can be cloned for each replica; for any other, a factory makes one per replica, see
/// [`Stream::operator`](crate::Stream::operator). One replica runs on one thread, so `&mut self` is its state.
///
/// ```
/// use sage::{Emit, Environment, Fault, Operator};
///
/// /// Joins each two neighbouring words.
/// struct Pairs {
///     last: Option<String>,
/// }
///
/// impl Operator for Pairs {
///     type In = String;
///     type Out = String;
///
///     fn process(&mut self, word: String, out: &mut impl Emit<String>) -> Result<(), Fault> {
///         if let Some(last) = self.last.replace(word.clone()) {
///             out.emit(format!("{last} {word}"))?;
///         }
///         Ok(())
///     }
/// }
///
/// let env = Environment::local("pairs");
/// let pairs = env
///     .from_iter(["a", "b", "c"].map(String::from))
///     .operator(|| Pairs { last: None })
///     .collect();
/// env.run()?;
/// assert_eq!(pairs.take(), ["a b", "b c"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Operator: Send + 'static {
    /// The records it takes.
    type In: Send + 'static;
    /// The records it emits.
    type Out: Send + 'static;

    /// Runs once, on the task's own thread, before the first record.
    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        let _ = cx;
        Ok(())
    }

    /// Takes one record and emits any number.
    fn process(&mut self, record: Self::In, out: &mut impl Emit<Self::Out>) -> Result<(), Fault>;

    /// Emits what the operator held back in order to process several records at a time. Runs between two batches of
    /// input, before the task waits for more, and before a watermark passes. It does not run at the end of input:
    /// [`finish`](Operator::finish) has to emit the rest.
    fn flush(&mut self, out: &mut impl Emit<Self::Out>) -> Result<(), Fault> {
        let _ = out;
        Ok(())
    }

    /// Emits what has come of work that goes on outside of the task, such as in another process, and gives it more.
    /// Takes the place of [`flush`](Operator::flush) between two batches of input; runs also when the input was found
    /// empty, and when the descriptor of [`awaits`](Operator::awaits) can be read. It does not wait for that work, and
    /// may hold back what has none of its results yet. The default is `flush`.
    fn progress(&mut self, out: &mut impl Emit<Self::Out>) -> Result<(), Fault> {
        self.flush(out)
    }

    /// While work goes on outside of the task: what can be read when [`progress`](Operator::progress) has more to do.
    /// The task waits for that besides its input. One that cannot, as it begins with a source or runs on the inline
    /// backend, calls `flush` in place of such a wait.
    fn awaits(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Runs at the end of input, and may still emit: before the last watermark, [`Timestamp::MAX`], goes on. Does not
    /// run after a failure or a cancel.
    ///
    /// [`Timestamp::MAX`]: crate::Timestamp::MAX
    fn finish(&mut self, out: &mut impl Emit<Self::Out>) -> Result<(), Fault> {
        let _ = out;
        Ok(())
    }

    /// Releases what `open` acquired. Runs exactly once after `open` was called, whether or not `open` succeeded.
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }
}

/// A user's operator is a stage that knows of no signal but the time to flush and the end.
impl<O: Operator> Stage for O {
    type In = O::In;
    type Out = O::Out;
    type Side = Infallible;
    const FLAGS: Flags = Flags::ANY;

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        Operator::open(self, cx)
    }

    #[inline(always)]
    fn process(&mut self, record: O::In, out: &mut impl Outlet<O::Out, Infallible>) -> Result<(), Fault> {
        Operator::process(self, record, out)
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<O::Out, Infallible>) -> Result<(), Fault> {
        match signal {
            Signal::Finish => self.finish(out),
            Signal::Time => self.progress(out),
            // What it holds back comes before what follows it.
            _ if signal.follows_records() => self.flush(out),
            _ => Ok(()),
        }
    }

    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        Operator::close(self, cx)
    }

    fn awaits(&self) -> Option<BorrowedFd<'_>> {
        Operator::awaits(self)
    }
}
