//! A [`Filter`] as a condition of Chroma's: the narrowest that every record meets which meets the filter.
//!
//! What Chroma's conditions mean, found by trying: `$ne`, `$nin` and `$not_contains` are met by a record without the
//! value, and by one with a value of another type. An integer that is asked for also finds floats; a float finds
//! integers by its whole part, and is not asked for. `$contains` finds an element of a list, of exactly its type.

use serde_json::{Value as Json, json};

use super::values::{KINDS, date_key, json as plain, kind_of};
use crate::store::filter::{Comparison, Filter};
use crate::store::value::Value;

/// Up to here a float is as exact as an integer.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// The most comparisons in a condition. The database behind Chroma bounds their depth.
const MOST: usize = 500;

/// A condition, and whether it is all that the filter says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Narrowed {
    pub(super) condition: Condition,
    pub(super) is_exact: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    /// Every record meets it.
    All,
    /// None does.
    Nothing,
    Where(Json),
}

/// Narrows to what meets the filter. `has_kinds`: all records have been written by this driver.
pub(super) fn narrowed(filter: &Filter, has_kinds: bool) -> Narrowed {
    if comparisons(filter) > MOST { at_most(Condition::All) } else { Narrowing { has_kinds }.of(filter, true) }
}

fn comparisons(filter: &Filter) -> usize {
    match filter {
        Filter::Compare(..) | Filter::Contains(..) => 1,
        Filter::In(_, values) => values.len(),
        Filter::And(filters) | Filter::Or(filters) => filters.iter().map(comparisons).sum(),
        Filter::Not(filter) => comparisons(filter),
    }
}

fn exactly(condition: Condition) -> Narrowed {
    Narrowed { condition, is_exact: true }
}

/// A condition that is wider than the filter.
fn at_most(condition: Condition) -> Narrowed {
    Narrowed { is_exact: condition == Condition::Nothing, condition }
}

fn compared(key: &str, operator: &str, value: Json) -> Condition {
    Condition::Where(json!({ key: { operator: value } }))
}

fn all(of: impl IntoIterator<Item = Narrowed>) -> Narrowed {
    joined(of, "$and", Condition::All, Condition::Nothing)
}

fn any(of: impl IntoIterator<Item = Narrowed>) -> Narrowed {
    joined(of, "$or", Condition::Nothing, Condition::All)
}

/// Joins conditions. `neutral` adds nothing, and `decisive` is the whole, which it is exactly if it is so itself.
fn joined(of: impl IntoIterator<Item = Narrowed>, operator: &str, neutral: Condition, decisive: Condition) -> Narrowed {
    let (mut conditions, mut is_exact) = (Vec::new(), true);
    let of: Vec<Narrowed> = of.into_iter().collect();
    if of.iter().any(|one| one.condition == decisive) {
        let is_exact = of.iter().any(|one| one.condition == decisive && one.is_exact);
        return Narrowed { condition: decisive, is_exact };
    }
    for one in of {
        is_exact &= one.is_exact;
        if let Condition::Where(condition) = one.condition {
            conditions.push(condition);
        }
    }
    let condition = match conditions.len() {
        0 => neutral,
        1 => Condition::Where(conditions.remove(0)),
        _ => Condition::Where(json!({ operator: conditions })),
    };
    Narrowed { condition, is_exact }
}

struct Narrowing {
    has_kinds: bool,
}

impl Narrowing {
    /// Narrows to what meets the filter (`is_met`), or to what does not.
    fn of(&self, filter: &Filter, is_met: bool) -> Narrowed {
        match filter {
            Filter::And(filters) if is_met => all(filters.iter().map(|filter| self.of(filter, true))),
            Filter::And(filters) => any(filters.iter().map(|filter| self.of(filter, false))),
            Filter::Or(filters) if is_met => any(filters.iter().map(|filter| self.of(filter, true))),
            Filter::Or(filters) => all(filters.iter().map(|filter| self.of(filter, false))),
            Filter::Not(filter) => self.of(filter, !is_met),
            Filter::Compare(name, comparison, value) => self.compare(name, *comparison, value, is_met),
            Filter::In(name, values) => {
                let equal = values.iter().map(|value| self.compare(name, Comparison::Equal, value, is_met));
                if is_met { any(equal) } else { all(equal) }
            }
            Filter::Contains(name, value) => self.contains(name, value, is_met),
        }
    }

    fn compare(&self, name: &str, comparison: Comparison, value: &Value, is_met: bool) -> Narrowed {
        let equal = if is_met { "$eq" } else { "$ne" };
        match (value, comparison) {
            (Value::String(_) | Value::Boolean(_), Comparison::Equal) => exactly(compared(name, equal, plain(value))),
            (Value::Date(_), Comparison::Equal) => exactly(compared(&date_key(name), equal, plain(value))),
            (Value::Date(_), _) if is_met => exactly(compared(&date_key(name), operator(comparison), plain(value))),
            (Value::Boolean(than), _) => {
                let meant = [false, true].into_iter().filter(|truth| comparison.allows(truth.cmp(than)));
                let each = meant.map(|truth| exactly(compared(name, equal, truth.into())));
                if is_met { any(each) } else { all(each) }
            }
            (Value::Integer(_) | Value::Float(_), Comparison::Equal) if !is_met => match whole(value) {
                Some(number) => exactly(compared(name, "$ne", number.into())),
                None => at_most(Condition::All),
            },
            (Value::Integer(_) | Value::Float(_), _) if is_met => number(name, comparison, value),
            (Value::Integer(_) | Value::Float(_) | Value::Date(_), _) => {
                any([self.kind(name, value, false), self.compare(name, opposite(comparison), value, true)])
            }
            // Of these Chroma can only say that they are there.
            (Value::String(_) | Value::List(_), _) if is_met => wider(self.kind(name, value, true)),
            (Value::String(_) | Value::List(_), _) => at_most(Condition::All),
        }
    }

    fn contains(&self, name: &str, value: &Value, is_met: bool) -> Narrowed {
        let operator = if is_met { "$contains" } else { "$not_contains" };
        let key = if matches!(value, Value::Date(_)) { &date_key(name) } else { name };
        let each = of_each_type(value).into_iter().map(|value| exactly(compared(key, operator, plain(&value))));
        match (is_met, value) {
            // A text may have it in it, too.
            (true, Value::String(_)) => any(each.chain([wider(self.kind(name, value, true))])),
            (true, _) => any(each),
            (false, Value::String(_)) => wider(all(each)),
            (false, _) => all(each),
        }
    }

    /// Whether there is a value of this one's kind.
    fn kind(&self, name: &str, value: &Value, is_there: bool) -> Narrowed {
        if !self.has_kinds {
            return at_most(Condition::All);
        }
        let operator = if is_there { "$contains" } else { "$not_contains" };
        exactly(compared(KINDS, operator, kind_of(name, value).into()))
    }
}

fn wider(narrowed: Narrowed) -> Narrowed {
    at_most(narrowed.condition)
}

fn operator(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => "$eq",
        Comparison::Less => "$lt",
        Comparison::AtMost => "$lte",
        Comparison::Greater => "$gt",
        Comparison::AtLeast => "$gte",
    }
}

fn number(name: &str, comparison: Comparison, value: &Value) -> Narrowed {
    if let Some(whole) = whole(value) {
        return exactly(compared(name, operator(comparison), whole.into()));
    }
    // Between whole numbers, or beyond what is exact: the next whole ones that include it.
    let near = match value {
        Value::Integer(number) => *number as f64,
        Value::Float(number) => *number,
        _ => return at_most(Condition::All),
    };
    let above = || compared(name, "$gte", (near.floor().clamp(-EXACT, EXACT) as i64).into());
    let below = || compared(name, "$lte", (near.ceil().clamp(-EXACT, EXACT) as i64).into());
    let (has_above, has_below) = (near > -EXACT, near < EXACT);
    let (from, to) = match comparison {
        Comparison::Equal => (has_above, has_below),
        Comparison::Greater | Comparison::AtLeast => (has_above, false),
        Comparison::Less | Comparison::AtMost => (false, has_below),
    };
    let bounds = [from.then(above), to.then(below)].into_iter().flatten();
    wider(all(bounds.map(at_most)))
}

/// The number, if it is whole and exact both as an integer and as a float.
fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number).filter(|number| number.unsigned_abs() <= EXACT as u64),
        Value::Float(number) => (number.fract() == 0.0 && number.abs() <= EXACT).then_some(*number as i64),
        _ => None,
    }
}

/// The values that are equal to this one, in every type that elements of a list can have.
fn of_each_type(value: &Value) -> Vec<Value> {
    let mut each = vec![value.clone()];
    match value {
        Value::Integer(number) => each.push(Value::Float(*number as f64)),
        Value::Float(number) => each.push(Value::Integer(*number as i64)),
        _ => {}
    }
    each.retain(|one| one.is_equal(value));
    each
}

fn opposite(comparison: Comparison) -> Comparison {
    match comparison {
        Comparison::Less => Comparison::AtLeast,
        Comparison::AtMost => Comparison::Greater,
        Comparison::Greater => Comparison::AtMost,
        Comparison::AtLeast => Comparison::Less,
        Comparison::Equal => Comparison::Equal,
    }
}
