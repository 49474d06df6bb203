//! [`LlmError`]: why a provider gave no answer, and what that means to a policy.

use std::error::Error;
use std::time::Duration;

use reqwest::header::HeaderMap;
use sage::{BoxError, ServiceError, Verdict};
use serde_json::Value;

use crate::connection::{asked_delay, is_of_tls, quoted, should_retry};

/// Why a provider gave no answer. Methods of [`Llm`](super::Llm) return it within a [`ServiceError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LlmError {
    /// The key was to come from a variable that has none.
    #[error("the variable `{variable}`, which should have the key, {reason}")]
    NoKey {
        /// The variable.
        variable: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The options are none to ask a provider with: a wrong address, or a key that is no header.
    #[error("the options of the client are wrong")]
    Options(#[source] BoxError),
    /// The provider cannot be reached.
    #[error("the provider cannot be reached")]
    Unreachable(#[source] BoxError),
    /// The connection broke off, or nothing came for too long.
    #[error("the connection to the provider broke off")]
    Broken(#[source] BoxError),
    /// The provider answered with an error.
    #[error("the provider answered {status}: {message}")]
    Status {
        /// The status of HTTP; 200 for an error that was sent as an answer.
        status: u16,
        /// What the provider calls it, such as `insufficient_quota`.
        code: Option<String>,
        /// What the provider says of it, cut to 500 characters, without the key.
        message: String,
        /// How long it asks its callers to wait, 120 seconds at most.
        retry_after: Option<Duration>,
    },
    /// A stream ended before the answer had: there was no reason of its finish.
    #[error("the stream was cut: it ended without a finish reason")]
    Cut,
    /// The answer is none that can be understood.
    #[error("the answer is malformed: {0}")]
    Malformed(String),
    /// The answer is larger than it may be.
    #[error("the answer has more than {limit} bytes")]
    TooLarge {
        /// The most bytes it may have.
        limit: usize,
    },
}

impl LlmError {
    /// The error within that of a service, or of a call.
    pub fn of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    pub(super) fn malformed(reason: impl Into<String>) -> ServiceError {
        ServiceError::new(Verdict::Passing(None), Self::Malformed(reason.into()))
    }
}

/// What a request came to that had no answer.
pub(super) fn unsent(error: reqwest::Error) -> ServiceError {
    let error = error.without_url();
    if error.is_builder() {
        return ServiceError::new(Verdict::Bad, LlmError::Options(error.into()));
    }
    if error.is_connect() {
        // A handshake that fails is no outage: somebody is there.
        let verdict = if is_of_tls(&error) { Verdict::Passing(None) } else { Verdict::Outage };
        return ServiceError::new(verdict, LlmError::Unreachable(error.into()));
    }
    ServiceError::new(Verdict::Passing(None), LlmError::Broken(error.into()))
}

/// What a provider's error means. `body` has no key in it.
pub(super) fn refused(status: u16, headers: &HeaderMap, body: &str) -> ServiceError {
    let told = serde_json::from_str(body).map(|body| Told::of(&body)).unwrap_or_default();
    let retry_after = asked_delay(headers);
    let verdict = if matches!(status, 401 | 402 | 403 | 407) || told.is_terminal() {
        Verdict::Denied
    } else {
        let may_retry = should_retry(headers).unwrap_or(matches!(status, 408 | 409 | 429) || status >= 500);
        match may_retry {
            false => Verdict::Bad,
            true if matches!(status, 429 | 529) => Verdict::Throttled(retry_after),
            true => Verdict::Passing(retry_after),
        }
    };
    let message = quoted(told.message.as_deref().unwrap_or(body));
    ServiceError::new(verdict, LlmError::Status { status, code: told.code, message, retry_after })
}

/// What an error means that came as an answer, or within a stream; `None` if this is none.
pub(super) fn answered(answer: &Value, without_key: impl Fn(&str) -> String) -> Option<ServiceError> {
    answer.get("error").filter(|error| !error.is_null())?;
    let told = Told::of(answer);
    let verdict = match told.code.as_deref() {
        _ if told.is_terminal() => Verdict::Denied,
        Some(code) if code.contains("rate_limit") || code == "429" => Verdict::Throttled(None),
        Some(code) if code.starts_with("invalid") => Verdict::Bad,
        _ => Verdict::Passing(None),
    };
    let message = quoted(&without_key(told.message.as_deref().unwrap_or("an error that says nothing")));
    let code = told.code.map(|code| without_key(&code));
    Some(ServiceError::new(verdict, LlmError::Status { status: 200, code, message, retry_after: None }))
}

/// What an error's body tells.
#[derive(Default)]
struct Told {
    code: Option<String>,
    kind: Option<String>,
    message: Option<String>,
}

impl Told {
    fn of(body: &Value) -> Self {
        let error = body.get("error").filter(|error| !error.is_null()).unwrap_or(body);
        let text = |name: &str| match error.get(name) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        let kind = text("type");
        let message = text("message").or_else(|| error.as_str().map(str::to_owned)).or_else(|| text("detail"));
        Self { code: text("code").or_else(|| kind.clone()), kind, message }
    }

    /// Whether there is no more to be had for this account.
    fn is_terminal(&self) -> bool {
        [&self.code, &self.kind].iter().any(|told| told.as_deref() == Some("insufficient_quota"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, headers: &[(&'static str, &str)], body: &str) -> Verdict {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        refused(status, &headers, body).verdict()
    }

    #[test]
    fn a_status_says_whether_it_may_go_better() {
        for status in [408, 409, 500, 502, 503, 504] {
            assert_eq!(verdict(status, &[], ""), Verdict::Passing(None), "{status}");
        }
        for status in [301, 400, 404, 413, 422] {
            assert_eq!(verdict(status, &[], ""), Verdict::Bad, "{status}");
        }
        for status in [401, 402, 403, 407] {
            assert_eq!(verdict(status, &[], ""), Verdict::Denied, "{status}");
        }
        assert_eq!(verdict(429, &[], ""), Verdict::Throttled(None));
        let two = Some(Duration::from_secs(2));
        assert_eq!(verdict(429, &[("retry-after", "2")], ""), Verdict::Throttled(two));
        assert_eq!(verdict(503, &[("retry-after", "2")], ""), Verdict::Passing(two));
    }

    #[test]
    fn the_provider_has_the_first_word_and_an_empty_account_the_last() {
        assert_eq!(verdict(500, &[("x-should-retry", "false")], ""), Verdict::Bad);
        assert_eq!(verdict(400, &[("x-should-retry", "true")], ""), Verdict::Passing(None));
        let spent = r#"{"error": {"code": "insufficient_quota", "message": "pay"}}"#;
        assert_eq!(verdict(429, &[("x-should-retry", "true"), ("retry-after", "1")], spent), Verdict::Denied);
        let by_type = r#"{"error": {"type": "insufficient_quota", "code": null}}"#;
        assert_eq!(verdict(429, &[], by_type), Verdict::Denied);
        assert_eq!(verdict(402, &[("x-should-retry", "true")], ""), Verdict::Denied);
    }

    #[test]
    fn what_is_quoted_is_bounded_and_may_be_anything() {
        let told = |body: &str| refused(400, &HeaderMap::new(), body).to_string();
        assert_eq!(told(r#"{"error": {"message": "no such model"}}"#), "the provider answered 400: no such model");
        assert_eq!(told(r#"{"detail": "gone"}"#), "the provider answered 400: gone");
        assert_eq!(told(r#"{"error": "flat"}"#), "the provider answered 400: flat");
        assert_eq!(told("<html>"), "the provider answered 400: <html>");
        assert!(told(&"ä".repeat(10_000)).chars().count() < 600);
    }
}
