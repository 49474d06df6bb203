//! Whether a provider wants a request again, and after how long: what its headers say.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, HeaderName, RETRY_AFTER};

/// A provider is not waited for longer.
const LONGEST: Duration = Duration::from_secs(120);

/// Whether the provider says that the request should be sent again, or should not.
#[cfg(feature = "llm")]
pub(crate) fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match text(headers, &HeaderName::from_static("x-should-retry"))? {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// How long the provider asks its callers to wait: in milliseconds, else in seconds, else until a date.
pub(crate) fn asked_delay(headers: &HeaderMap) -> Option<Duration> {
    let millis = text(headers, &HeaderName::from_static("retry-after-ms")).and_then(|text| number(text, 1e-3));
    let delay = millis.or_else(|| {
        let text = text(headers, &RETRY_AFTER)?;
        number(text, 1.0).or_else(|| until(text))
    });
    delay.map(|delay| delay.min(LONGEST))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn number(text: &str, unit: f64) -> Option<Duration> {
    let seconds = text.parse::<f64>().ok().filter(|number| *number >= 0.0)? * unit;
    Some(Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST))
}

/// The time until a date of HTTP; zero if it has passed.
fn until(text: &str) -> Option<Duration> {
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(headers: &[(&'static str, &str)]) -> Option<Duration> {
        asked_delay(&headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect())
    }

    #[test]
    fn milliseconds_come_before_seconds_and_those_before_dates() {
        let millis = Duration::from_millis;
        assert_eq!(delay(&[("retry-after-ms", "250"), ("retry-after", "9")]), Some(millis(250)));
        assert_eq!(delay(&[("retry-after-ms", "soon"), ("retry-after", "1.5")]), Some(millis(1500)));
        assert_eq!(delay(&[("retry-after", "soon")]), None);
        assert_eq!(delay(&[("retry-after", "-1")]), None);
        assert_eq!(delay(&[("retry-after", "NaN")]), None);
        assert_eq!(delay(&[]), None);
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        let until_date = delay(&[("retry-after", &date)]).unwrap();
        assert!(until_date > millis(50_000) && until_date <= millis(60_000), "{until_date:?}");
        assert_eq!(delay(&[("retry-after", "Mon, 01 Jan 2024 00:00:00 GMT")]), Some(Duration::ZERO));
    }

    #[test]
    fn no_wait_is_longer_than_two_minutes() {
        for long in ["121", "1e300", "inf", "Fri, 01 Jan 2100 00:00:00 GMT"] {
            assert_eq!(delay(&[("retry-after", long)]), Some(LONGEST), "{long}");
        }
    }
}
