//! What becomes of the windows that are open when something other than the end of input ends the job.

use std::sync::Arc;

use crate::chain::{Emit, Fault, FinishContext, OpenContext};
use crate::control::JobControl;
use crate::time::{Timed, Windowed};

/// What becomes of windows that are open when a signal, or the environment's time limit, drains the job: records that
/// belong to them were not read, so their results would be wrong.
///
/// It does not apply where the job ends as if its input had ended: after [`JobView::drain`](crate::JobView::drain)
/// and under [`SignalPolicy::Finish`](crate::SignalPolicy::Finish) all windows fire. A cancel drops them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnSignal {
    /// They are dropped, and [`OperatorReport::dropped_windows`](crate::OperatorReport::dropped_windows) counts them.
    #[default]
    Drop,
    /// They fire with the records they have, and their results are marked as [`partial`](Windowed::partial).
    Emit,
}

/// How windows end.
pub(crate) enum End {
    /// All their records have come.
    Whole,
    /// They fire, marked as partial.
    Partial,
    /// They are dropped.
    Dropped,
}

/// What an operator of windows knows of the end of its job, and how many windows it has dropped then.
#[derive(Debug, Clone)]
pub struct Cut {
    on_signal: OnSignal,
    control: Option<Arc<JobControl>>,
    pub(crate) dropped: u64,
}

impl Cut {
    pub(crate) fn new(on_signal: OnSignal) -> Self {
        Self { on_signal, control: None, dropped: 0 }
    }

    /// Before the first record.
    pub(crate) fn open(&mut self, cx: &OpenContext) {
        self.control = Some(cx.control.clone());
    }

    /// How the windows that are open now end, after the last record. As with sinks, whoever knows of a signal by now
    /// does not take the end for that of the input.
    pub(crate) fn end(&self) -> End {
        match (&self.control, self.on_signal) {
            (Some(control), OnSignal::Drop) if FinishContext::new(control).is_err() => End::Dropped,
            (Some(control), OnSignal::Emit) if FinishContext::new(control).is_err() => End::Partial,
            _ => End::Whole,
        }
    }
}

/// Marks results as partial.
pub(crate) struct AsPartial<'a, E>(pub(crate) &'a mut E);

impl<K, V, E: Emit<Timed<Windowed<K, V>>>> Emit<Timed<Windowed<K, V>>> for AsPartial<'_, E> {
    fn emit(&mut self, mut result: Timed<Windowed<K, V>>) -> Result<(), Fault> {
        result.value.partial = true;
        self.0.emit(result)
    }

    fn look(&mut self) -> Result<(), Fault> {
        self.0.look()
    }
}
