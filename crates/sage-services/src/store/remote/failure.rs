//! What it means to a policy that a server did not do what it was asked for.

use std::time::Duration;

use sage::{BoxError, ServiceError, Verdict};

use crate::connection::{is_of_tls, quoted};

/// What a request came to that had no answer. A server that cannot be reached, or goes away, is an outage; one that
/// takes too long may be there.
pub(in crate::store) fn unsent(error: reqwest::Error) -> ServiceError {
    let error = error.without_url();
    let verdict = if error.is_builder() {
        Verdict::Bad
    } else if is_of_tls(&error) || error.is_decode() || (error.is_timeout() && !error.is_connect()) {
        Verdict::Passing(None)
    } else {
        Verdict::Outage
    };
    ServiceError::new(verdict, error)
}

/// What a refusal means that came by a status of HTTP.
pub(in crate::store) fn judged(status: u16, delay: Option<Duration>, body: &str) -> ServiceError {
    let verdict = match status {
        401 | 403 | 407 => Verdict::Denied,
        429 | 529 => Verdict::Throttled(delay),
        408 | 500.. => Verdict::Passing(delay),
        _ => Verdict::Bad,
    };
    ServiceError::new(verdict, BoxError::from(format!("it answered {status}: {}", quoted(body))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_meaning() {
        let two = Some(Duration::from_secs(2));
        for (status, verdict) in [
            (400, Verdict::Bad),
            (401, Verdict::Denied),
            (404, Verdict::Bad),
            (408, Verdict::Passing(two)),
            (429, Verdict::Throttled(two)),
            (500, Verdict::Passing(two)),
            (503, Verdict::Passing(two)),
        ] {
            assert_eq!(judged(status, two, "").verdict(), verdict, "{status}");
        }
        assert_eq!(judged(400, None, " wrong ").to_string(), "it answered 400: wrong");
    }
}
