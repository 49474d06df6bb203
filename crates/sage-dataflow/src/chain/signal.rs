//! The signals that travel along a chain between records.

use crate::between::{Between, Numbered, Watermark};

/// Something that travels along a chain in its place among the records.
///
/// To add one: give it a variant here; the compiler then shows the places that decide on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A batch is over, the moment of [`Push::wake_at`](super::Push::wake_at) has come, or one of
    /// [`Push::awaits`](super::Push::awaits) can be read.
    Time,
    /// The task may wait for long, and not for what goes on outside of it: that is to be waited for now.
    Settle,
    /// No record is waiting: buffered records are to be written out. Comes after [`Time`](Self::Time).
    Flush,
    /// Every earlier record was pushed, but for late ones.
    Watermark(Watermark),
    /// A probe of a loop, in its numbered round: every record before it was pushed.
    Probe(u64),
    /// This input of the inbox, counted from 0, has ended: all its records were pushed. Only the first operator of a
    /// chain gets it, once for each input, the last one before [`Finish`](Self::Finish).
    InputEnded(usize),
    /// The end of input: every record was pushed.
    Finish,
    /// For a test: shows that a signal reaches every operator.
    #[cfg(test)]
    Trace(u64),
}

impl Signal {
    /// Whether records that an operator holds back have to go on before it does.
    #[inline(always)]
    pub(crate) fn follows_records(self) -> bool {
        match self {
            Self::Time | Self::Settle | Self::Watermark(_) | Self::Probe(_) => true,
            Self::Flush | Self::InputEnded(_) | Self::Finish => false,
            #[cfg(test)]
            Self::Trace(_) => true,
        }
    }

    /// What it is in a lane, if lanes carry it.
    pub(crate) fn between(self) -> Option<Between> {
        match self {
            Self::Watermark(watermark) => Some(Between::Watermark(watermark)),
            Self::Probe(round) => Some(Between::Numbered(Numbered::Probe, round)),
            // A reader sees to its own time; ends of lanes are no signals.
            Self::Time | Self::Settle | Self::Flush | Self::InputEnded(_) | Self::Finish => None,
            #[cfg(test)]
            Self::Trace(round) => Some(Between::Numbered(Numbered::Trace, round)),
        }
    }
}

impl From<Between> for Signal {
    fn from(between: Between) -> Self {
        match between {
            Between::Watermark(watermark) => Self::Watermark(watermark),
            Between::Numbered(Numbered::Probe, round) => Self::Probe(round),
            #[cfg(test)]
            Between::Numbered(Numbered::Trace, round) => Self::Trace(round),
        }
    }
}

/// Which operators a trace has come by, in unit tests: name, replica, round.
#[cfg(test)]
pub(crate) mod traced {
    use std::sync::Mutex;

    use super::Signal;
    use crate::chain::OpenContext;
    use crate::sync::lock;

    static SEEN: Mutex<Vec<(String, usize, u64)>> = Mutex::new(Vec::new());

    /// Notes that a trace comes by the operator of this context.
    pub(crate) fn note(signal: Signal, cx: &OpenContext) {
        if let Signal::Trace(round) = signal {
            lock(&SEEN).push((cx.name.clone(), cx.replica, round));
        }
    }

    /// What was noted since it was last asked.
    pub(crate) fn take() -> Vec<(String, usize, u64)> {
        std::mem::take(&mut lock(&SEEN))
    }
}
