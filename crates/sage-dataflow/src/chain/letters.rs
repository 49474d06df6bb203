//! Dead letters: records on which an operator failed.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::context::OpenContext;
use crate::guarded::error_chain;

/// A record on which an operator failed, with what you need to find the cause and to try the record again.
///
/// It implements serde's traits if the record does, so it can be written to a file and read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter<T> {
    /// The record as the operator received it.
    pub record: T,
    /// The operator's name.
    pub operator: String,
    /// The operator's replica, from 0.
    pub replica: usize,
    /// The record's number among those that this replica took, from 1.
    pub position: u64,
    /// How often the operator was called with it.
    pub attempts: u32,
    /// The message of the error, then those of its sources.
    pub errors: Vec<String>,
    /// When the operator failed, in milliseconds since 1970 (UTC).
    pub time_ms: u64,
}

impl<T> DeadLetter<T> {
    /// The letter of a record on which the operator of `context` failed, the `failed`th of this replica; it is counted.
    pub(crate) fn new(
        record: T,
        position: u64,
        attempts: u32,
        error: &(dyn std::error::Error + 'static),
        context: &OpenContext,
        failed: u64,
    ) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let errors = error_chain(error);
        context.passed.note(failed, &errors);
        let (operator, replica) = (context.name.clone(), context.replica);
        Self { record, operator, replica, position, attempts, errors, time_ms }
    }
}
