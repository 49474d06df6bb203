//! What a lane says between its records: how far event time has come, and whether anything is coming at all.

/// A watermark: no record of an earlier time is to come, in milliseconds since the epoch; and whether the input is
/// idle, so that nobody should wait for its watermark. Records are the business of whoever reads it: an idle input that
/// gives one is not idle any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub(crate) millis: i64,
    pub(crate) idle: bool,
}

impl Mark {
    /// What holds before the first watermark: every time may come.
    pub(crate) const NONE: Self = Self { millis: i64::MIN, idle: false };

    /// What holds for the merged input of several, each with its own; `None` without any.
    ///
    /// The slowest counts, of those that are not idle. Where all are, the fastest does: nothing is to come that could
    /// be late.
    pub(crate) fn merged(marks: impl Iterator<Item = Self> + Clone) -> Option<Self> {
        let active = marks.clone().filter(|mark| !mark.idle).map(|mark| mark.millis).min();
        match active {
            Some(millis) => Some(Self { millis, idle: false }),
            None => marks.map(|mark| mark.millis).max().map(|millis| Self { millis, idle: true }),
        }
    }
}
