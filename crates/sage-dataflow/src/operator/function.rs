//! Functions that may fail and have something to open and close: for folds, and for `process`.
//!
//! A closure is one that does neither.

use super::process::KeyContext;
use super::timers::Timer;
use crate::BoxError;
use crate::chain::{CloseContext, OpenContext};

/// Folds records of type `T` into an accumulator: what `fold` does for a closure. Each replica and each run has its own
/// clone.
///
/// ```
/// use sage::{BoxError, Environment, ErrorPolicy, FoldFunction};
///
/// /// Adds numbers up, of those that are some.
/// #[derive(Clone)]
/// struct Sum;
///
/// impl FoldFunction<i64, &'static str> for Sum {
///     fn fold(&mut self, sum: &mut i64, text: &'static str) -> Result<(), BoxError> {
///         *sum += text.parse::<i64>()?;
///         Ok(())
///     }
/// }
///
/// let env = Environment::local("sum");
/// let sum = env.from_iter(["1", "two", "3"]).fold_with(0, Sum).on_error(ErrorPolicy::skip()).collect();
/// env.run()?;
/// assert_eq!(sum.take(), [4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait FoldFunction<A, T>: Clone + Send + 'static {
    /// Runs once, on the task's own thread, before the first record.
    fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }

    /// Folds one record in. After an error the accumulator is used on as the function left it.
    fn fold(&mut self, accumulator: &mut A, record: T) -> Result<(), BoxError>;

    /// Releases what `open` acquired. Runs exactly once after `open` was attempted, whatever happened since.
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }
}

impl<A, T, F: FnMut(&mut A, T) + Clone + Send + 'static> FoldFunction<A, T> for F {
    #[inline(always)]
    fn fold(&mut self, accumulator: &mut A, record: T) -> Result<(), BoxError> {
        self(accumulator, record);
        Ok(())
    }
}

/// Handles the records and the timers of each key: what [`process`](crate::KeyedStream::process) does for two closures.
/// `A` is the state of a key, `O` a record that goes on. Each replica and each run has its own clone.
pub trait ProcessFunction<I, K, A, O>: Clone + Send + 'static {
    /// Runs once, on the task's own thread, before the first record.
    fn open(&mut self, cx: &OpenContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }

    /// Takes a record, with the state of its key. An error is one at this record: the error policy decides. The state
    /// and the timers stay as the function left them, also for another attempt. What it pushed goes on, unless outputs
    /// are held until it has succeeded: under a policy that skips, a retry, or dead letters.
    fn on_record(&mut self, state: &mut A, record: I, key: &mut KeyContext<'_, '_, K, O>) -> Result<(), BoxError>;

    /// Takes a timer whose time has come, with the state of its key. An error fails the job, as there is no record to
    /// skip.
    fn on_timer(&mut self, state: &mut A, timer: Timer, key: &mut KeyContext<'_, '_, K, O>) -> Result<(), BoxError>;

    /// Releases what `open` acquired. Runs exactly once after `open` was attempted, whatever happened since.
    fn close(&mut self, cx: &CloseContext) -> Result<(), BoxError> {
        let _ = cx;
        Ok(())
    }
}

/// Two closures, for records and for timers.
#[derive(Clone)]
pub(crate) struct OnBoth<F, G> {
    pub(crate) on_record: F,
    pub(crate) on_timer: G,
}

impl<I, K, A, O, F, G> ProcessFunction<I, K, A, O> for OnBoth<F, G>
where
    F: FnMut(&mut A, I, &mut KeyContext<'_, '_, K, O>) + Clone + Send + 'static,
    G: FnMut(&mut A, Timer, &mut KeyContext<'_, '_, K, O>) + Clone + Send + 'static,
{
    #[inline(always)]
    fn on_record(&mut self, state: &mut A, record: I, key: &mut KeyContext<'_, '_, K, O>) -> Result<(), BoxError> {
        (self.on_record)(state, record, key);
        Ok(())
    }

    fn on_timer(&mut self, state: &mut A, timer: Timer, key: &mut KeyContext<'_, '_, K, O>) -> Result<(), BoxError> {
        (self.on_timer)(state, timer, key);
        Ok(())
    }
}
