//! What the caller of a service with a policy is raised.

use std::error::Error;

use pyo3::create_exception;
use pyo3::exceptions::PyTimeoutError;
use pyo3::intern;
use pyo3::prelude::*;
use sage::{CallError, MadeAgain, Refusal, RetriesExhausted};

use super::settings::{raised_in, said, sources};
use crate::error::{CallEnded, ServiceError};
use crate::service::refused;

create_exception!(sage, ServiceRefused, ServiceError, "The policy of a service did not let a call through.");

/// The exception for a call of this method that has no answer.
#[cold]
pub(crate) fn raised(py: Python<'_>, error: &CallError, method: &str) -> PyErr {
    match error {
        CallError::Failed { source, service } => {
            let Some(raised) = raised_in(&**source) else {
                let why = with_causes(&**source);
                return ServiceError::new_err(format!("service `{service}` did not answer `{method}`: {why}"));
            };
            if let Some(again) = sources(&**source).find_map(|error| error.downcast_ref::<MadeAgain>()) {
                return ServiceError::new_err(format!("{}; {again}", raised.exception.value(py)));
            }
            let exception = raised.exception.clone_ref(py);
            if let Some(attempts) = attempts_in(&**source) {
                note(py, &exception, &format!("gave up after {attempts} attempts"));
            }
            exception
        }
        CallError::TimedOut { service, timeout, attempts } => {
            let last = if *attempts > 1 { format!(", the last of {attempts} attempts") } else { String::new() };
            let within = said(*timeout);
            PyTimeoutError::new_err(format!("service `{service}` did not answer `{method}` within {within}{last}"))
        }
        CallError::PastDeadline { service, source } => {
            let late = format!("service `{service}` had not answered `{method}` by the deadline of the call");
            let late = PyTimeoutError::new_err(late);
            if let Some(raised) = source.as_ref().and_then(|source| raised_in(&**source)) {
                late.set_cause(py, Some(raised.exception.clone_ref(py)));
            }
            late
        }
        CallError::Refused { refusal, .. } => {
            let told = ServiceRefused::new_err(error.to_string());
            // An exception of our own, which takes any attribute.
            drop(told.value(py).setattr(intern!(py, "reason"), reason(refusal)));
            told
        }
        CallError::Ended { service } => {
            let ended = CallEnded::new_err(format!("service `{service}` has not answered `{method}`, as the job ends"));
            drop(ended.value(py).setattr(intern!(py, "service"), service));
            ended
        }
        CallError::Store { source, .. } => {
            let told = ServiceError::new_err(with_causes(error));
            if let Some(raised) = raised_in(&**source) {
                told.set_cause(py, Some(raised.exception.clone_ref(py)));
            }
            told
        }
        error => refused(error),
    }
}

fn attempts_in(error: &(dyn Error + 'static)) -> Option<u32> {
    sources(error).find_map(|error| error.downcast_ref::<RetriesExhausted>()).map(|exhausted| exhausted.attempts)
}

fn with_causes(error: &(dyn Error + 'static)) -> String {
    let all: Vec<_> = sources(error).map(ToString::to_string).collect();
    all.join(": ")
}

/// Adds a note to an exception, once, where the interpreter has notes.
fn note(py: Python<'_>, exception: &PyErr, note: &str) {
    let add = || {
        let value = exception.value(py);
        let notes = value.getattr(intern!(py, "__notes__")).and_then(|notes| notes.extract::<Vec<String>>());
        if notes.is_ok_and(|notes| notes.iter().any(|there| there == note)) {
            return Ok(());
        }
        value.call_method1(intern!(py, "add_note"), (note,)).map(drop)
    };
    let _no_notes: Result<(), PyErr> = add();
}

/// The reason in one word.
fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::QueueFull { .. } => "queue_full",
        Refusal::BreakerOpen { .. } => "breaker_open",
        Refusal::CostTooLarge { .. } => "cost_too_large",
        Refusal::PriceTooLarge { .. } => "price_too_large",
        Refusal::Spent { .. } => "spent",
        Refusal::Outage { .. } => "outage",
        _ => "refused",
    }
}
