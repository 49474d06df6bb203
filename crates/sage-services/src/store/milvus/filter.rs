//! A condition in Milvus's language.
//!
//! A value is asked for together with its kind, so that one that is missing, or of another type, says no, which `not`
//! can turn around: else servers of Milvus differ in what becomes of it.

use std::fmt::Write;

use super::{ID, METADATA};
use crate::store::filter::Comparison;
use crate::store::remote::{Condition, How, KINDS, One, json};

/// A condition as Milvus takes it: `Err` if nothing meets it, an empty one if everything does.
pub(super) fn said(condition: &Condition) -> Result<String, Nothing> {
    match condition {
        Condition::All => Ok(String::new()),
        Condition::Nothing => Err(Nothing),
        condition => Ok(some(condition)),
    }
}

/// No record meets the condition.
pub(super) struct Nothing;

/// The ids are among these.
pub(super) fn has_id(ids: &[String]) -> String {
    let mut said = format!("{ID} in [");
    for (number, id) in ids.iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        let _ = write!(said, "{comma}{}", quoted(id));
    }
    said + "]"
}

fn some(condition: &Condition) -> String {
    let joined = |conditions: &[Condition], by: &str| {
        let all: Vec<String> = conditions.iter().map(some).collect();
        format!("({})", all.join(by))
    };
    match condition {
        Condition::One(one) => said_of(one),
        Condition::And(all) => joined(all, " and "),
        Condition::Or(any) => joined(any, " or "),
        Condition::All | Condition::Nothing => unreachable!("they are no part of others"),
    }
}

fn said_of(one: &One) -> String {
    let value = match json(&one.value) {
        serde_json::Value::String(text) => quoted(&text),
        other => other.to_string(),
    };
    let said = match one.how {
        How::Contains => contains(&one.key, &value),
        How::Compares(comparison) => format!("{} {} {value}", path(&one.key), operator(comparison)),
    };
    let said = match &one.kind {
        Some(kind) => format!("({} and {said})", contains(KINDS, &quoted(kind))),
        None => said,
    };
    if one.is_met { said } else { format!("(not {said})") }
}

/// Milvus Lite takes a negative number only in a list.
fn contains(key: &str, value: &str) -> String {
    format!("json_contains_any({}, [{value}])", path(key))
}

fn path(key: &str) -> String {
    format!("{METADATA}[{}]", quoted(key))
}

fn operator(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => "==",
        Comparison::Less => "<",
        Comparison::AtMost => "<=",
        Comparison::Greater => ">",
        Comparison::AtLeast => ">=",
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
