//! Times and amounts, as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use sage_api::job::JobRecord;
pub(crate) use sage_api::job::lasting;

/// A moment in milliseconds since 1970, as the clock on the wall shows it.
pub(crate) fn moment(at_ms: u64) -> String {
    formatted(at_ms, "%Y-%m-%d %H:%M:%S")
}

/// As [`moment`], without the day, and with milliseconds.
pub(crate) fn time_of_day(at_ms: u64) -> String {
    formatted(at_ms, "%H:%M:%S%.3f")
}

fn formatted(at_ms: u64, format: &str) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
    at.map_or_else(String::new, |at| at.to_zoned_datetime(TimeZone::system()).strftime(format).to_string())
}

/// A short time, such as `1.3 ms`.
pub(crate) fn brief(time: Duration) -> String {
    let ns = time.as_nanos();
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// How long a job has been running, or was, in milliseconds.
pub(crate) fn runtime(job: &JobRecord) -> Option<u64> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    Some(job.ended_ms.unwrap_or_else(now).saturating_sub(job.started_ms?))
}

/// A number with a mark between thousands.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut told = digits[..first].to_owned();
    for (at, digit) in digits[first..].chars().enumerate() {
        if at % 3 == 0 && !told.is_empty() {
            told.push('\u{202f}');
        }
        told.push(digit);
    }
    told
}
