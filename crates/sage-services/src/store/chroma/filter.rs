//! A condition in Chroma's language.
//!
//! What that means, found by trying: `$ne` and `$not_contains` are met by a record without the value, and by one with a
//! value of another type. An integer that is asked for also finds floats. `$contains` finds an element of a list, of
//! exactly its type. So the kinds of values need not be asked for.

use serde_json::{Value as Json, json};

use crate::store::filter::Comparison;
use crate::store::remote::{Condition, How, One, json as plain};

/// A condition as Chroma takes it: `Err` if nothing meets it, nothing if everything does.
pub(super) fn said(condition: &Condition) -> Result<Option<Json>, Nothing> {
    match condition {
        Condition::All => Ok(None),
        Condition::Nothing => Err(Nothing),
        condition => Ok(Some(some(condition))),
    }
}

/// No record meets the condition.
pub(super) struct Nothing;

fn some(condition: &Condition) -> Json {
    match condition {
        Condition::One(one) => json!({ &one.key: { operator(one): plain(&one.value) } }),
        Condition::And(all) => json!({ "$and": all.iter().map(some).collect::<Vec<_>>() }),
        Condition::Or(any) => json!({ "$or": any.iter().map(some).collect::<Vec<_>>() }),
        Condition::All | Condition::Nothing => unreachable!("they are no part of others"),
    }
}

fn operator(one: &One) -> &'static str {
    match one.how {
        How::Contains if one.is_met => "$contains",
        How::Contains => "$not_contains",
        How::Compares(_) if !one.is_met => "$ne",
        How::Compares(Comparison::Equal) => "$eq",
        How::Compares(Comparison::Less) => "$lt",
        How::Compares(Comparison::AtMost) => "$lte",
        How::Compares(Comparison::Greater) => "$gt",
        How::Compares(Comparison::AtLeast) => "$gte",
    }
}
