//! What lies between the records of a lane: watermarks and numbered signals.

/// A watermark: no record of an earlier time is to come, in milliseconds since the epoch; and whether the input is
/// idle, so that nobody should wait for its watermark. Records are the business of whoever reads it: an idle input that
/// gives one is not idle any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    pub(crate) millis: i64,
    pub(crate) idle: bool,
}

impl Watermark {
    /// What holds before the first watermark: every time may come.
    pub(crate) const NONE: Self = Self { millis: i64::MIN, idle: false };

    /// Whether it is the one of the end of input, behind which no record comes at all.
    pub(crate) fn is_last(self) -> bool {
        self.millis == i64::MAX
    }

    /// What holds for the merged input of several, each with its own; `None` without any.
    ///
    /// The slowest counts, of those that are not idle. Where all are, the fastest does: nothing is to come that could
    /// be late.
    pub(crate) fn merged(watermarks: impl Iterator<Item = Self> + Clone) -> Option<Self> {
        let active = watermarks.clone().filter(|watermark| !watermark.idle).map(|watermark| watermark.millis).min();
        match active {
            Some(millis) => Some(Self { millis, idle: false }),
            None => watermarks.map(|watermark| watermark.millis).max().map(|millis| Self { millis, idle: true }),
        }
    }
}

/// Something between two records of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Between {
    Watermark(Watermark),
    /// This signal, in its round.
    Numbered(Numbered, u64),
}

/// The signals that are numbered, from 1. One passes a task once it has come by every lane on which it is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbered {
    /// A probe of a loop.
    Probe,
    #[cfg(test)]
    Trace,
}

/// A number for each of them.
pub(crate) type PerNumbered<N> = [N; Numbered::ALL.len()];

impl Numbered {
    pub(crate) const ALL: &[Self] = &[
        Self::Probe,
        #[cfg(test)]
        Self::Trace,
    ];

    /// Whether a lane lets it pass: where it does not, it holds it up until it ends.
    pub(crate) fn passes(self, in_loop: bool) -> bool {
        match self {
            Self::Probe => in_loop,
            #[cfg(test)]
            Self::Trace => true,
        }
    }

    /// Whether it is awaited on a lane that comes from the end of a loop.
    pub(crate) fn goes_round(self) -> bool {
        match self {
            Self::Probe => true,
            #[cfg(test)]
            Self::Trace => false,
        }
    }
}
