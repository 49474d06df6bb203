//! Moments as microseconds since 1970, and back.

use std::time::Duration;

use jiff::Timestamp;

pub(super) fn to_micros(moment: Timestamp) -> i64 {
    moment.as_microsecond()
}

/// Those of a file that are out of range become the last or the first there is.
pub(super) fn from_micros(micros: i64) -> Timestamp {
    let bound = if micros < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_microsecond(micros).unwrap_or(bound)
}

/// The moment that comes so much later; the last there is, if that is none.
pub(super) fn later(micros: i64, by: Duration) -> i64 {
    let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
    micros.saturating_add(by).min(Timestamp::MAX.as_microsecond())
}
