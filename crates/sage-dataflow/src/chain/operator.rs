//! The operators that users write: the [`Operator`] trait, and how the engine runs one.

use std::convert::Infallible;
use std::os::fd::BorrowedFd;

use super::context::{CloseContext, OpenContext};
use super::fault::Fault;
use super::signal::Signal;
use super::stage::{Emit, Flags, Outlet, Stage};
use crate::BoxError;
use crate::time::Timestamp;

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

    /// Heeds a watermark of event time before it goes on: every record before `watermark` has come, but for late ones.
    /// May emit. What is held back was emitted by [`flush`](Operator::flush) before. Watermarks come where
    /// [`with_timestamps`](crate::Stream::with_timestamps) is upstream, none earlier than the one before. The last one,
    /// [`Timestamp::MAX`], is not heeded: [`finish`](Operator::finish) runs in its place.
    ///
    /// ```
    /// use std::time::Duration;
    /// use sage::{Emit, Environment, Fault, Operator, OutOfOrder, Timed, Timestamp};
    ///
    /// /// Puts records in the order of their times.
    /// #[derive(Default)]
    /// struct InOrder(Vec<Timed<u32>>);
    ///
    /// impl InOrder {
    ///     fn emit_before(&mut self, time: Timestamp, out: &mut impl Emit<Timed<u32>>) -> Result<(), Fault> {
    ///         self.0.sort_by_key(|record| record.time);
    ///         let past = self.0.partition_point(|record| record.time < time);
    ///         self.0.drain(..past).try_for_each(|record| out.emit(record))
    ///     }
    /// }
    ///
    /// impl Operator for InOrder {
    ///     type In = Timed<u32>;
    ///     type Out = Timed<u32>;
    ///
    ///     fn process(&mut self, record: Timed<u32>, _out: &mut impl Emit<Timed<u32>>) -> Result<(), Fault> {
    ///         self.0.push(record);
    ///         Ok(())
    ///     }
    ///     fn on_watermark(&mut self, watermark: Timestamp, out: &mut impl Emit<Timed<u32>>) -> Result<(), Fault> {
    ///         self.emit_before(watermark, out)
    ///     }
    ///     fn finish(&mut self, out: &mut impl Emit<Timed<u32>>) -> Result<(), Fault> {
    ///         self.emit_before(Timestamp::MAX, out)
    ///     }
    /// }
    ///
    /// let env = Environment::local("in-order");
    /// let numbers = env
    ///     .from_iter([3, 1, 2, 5, 4])
    ///     .with_timestamps(|n| Timestamp::from_millis(i64::from(*n)), OutOfOrder::by(Duration::from_millis(2)))
    ///     .operator(InOrder::default)
    ///     .map(|record| record.value)
    ///     .collect();
    /// env.run()?;
    /// assert_eq!(numbers.take(), [1, 2, 3, 4, 5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn on_watermark(&mut self, watermark: Timestamp, out: &mut impl Emit<Self::Out>) -> Result<(), Fault> {
        let (_, _) = (watermark, out);
        Ok(())
    }

    /// When, by the job's [clock](OpenContext::clock), [`progress`](Operator::progress) is to run though no record has
    /// come: a timer. `None` if there is none. Asked between two batches of input. `progress` may run earlier, and has
    /// to look at the clock. In the chain of a source that blocks inside its own `next`, it runs when that returns.
    fn wake_at(&self) -> Option<Timestamp> {
        None
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
            Signal::Watermark(watermark) => {
                self.flush(out)?;
                match Timestamp::from_millis(watermark.millis) {
                    Timestamp::MIN | Timestamp::MAX => Ok(()),
                    watermark => self.on_watermark(watermark, out),
                }
            }
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

    fn wake_at(&self) -> Option<Timestamp> {
        Operator::wake_at(self)
    }
}
