//! A [`Filter`] as a condition that servers understand: the narrowest that every record meets which meets the filter.
//!
//! Servers say otherwise than [`Filter`] does what becomes of a value that is missing or of another type, of an integer
//! beside a float, and of `not`. So a condition is made of little: a value and whether it is of its kind, both as
//! [`kept`](super::kept) has written them, and `not` only in front of one comparison. An order of texts, lists that are
//! equal and text within text are not said at all, and a number only if it is whole and exact as integer and float.

use super::kept::{KINDS, date_key, kind_of};
use crate::store::filter::{Comparison, Filter};
use crate::store::value::Value;

/// Up to here a float is as exact as an integer.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// The most comparisons in a condition. The database behind Chroma bounds their depth.
const MOST: usize = 500;

/// A condition, and whether it is all that the filter says.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::store) struct Narrowed {
    pub(in crate::store) condition: Condition,
    pub(in crate::store) is_exact: bool,
}

/// What is asked of a server.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::store) enum Condition {
    /// Every record meets it.
    All,
    /// None does.
    Nothing,
    /// One comparison.
    One(One),
    /// All of these, which are two or more.
    And(Vec<Condition>),
    /// One of these or more, which are two or more.
    Or(Vec<Condition>),
}

/// One comparison of a value that is kept under `key`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::store) struct One {
    pub(in crate::store) key: String,
    /// How [`KINDS`] says that the value is there; nothing for those themselves.
    pub(in crate::store) kind: Option<String>,
    pub(in crate::store) how: How,
    pub(in crate::store) value: Value,
    /// Met by records of which it is true, or by all others, which only `Equal` and `Contains` are asked for.
    pub(in crate::store) is_met: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::store) enum How {
    Compares(Comparison),
    /// It is a list with this element.
    Contains,
}

/// Narrows to what meets the filter. `has_kinds`: all records have been written by this driver.
pub(in crate::store) fn narrowed(filter: Option<&Filter>, has_kinds: bool) -> Narrowed {
    let Some(filter) = filter else { return exactly(Condition::All) };
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

fn all(of: impl IntoIterator<Item = Narrowed>) -> Narrowed {
    joined(of, Condition::And, Condition::All, Condition::Nothing)
}

fn any(of: impl IntoIterator<Item = Narrowed>) -> Narrowed {
    joined(of, Condition::Or, Condition::Nothing, Condition::All)
}

/// Joins conditions. `neutral` adds nothing, and `decisive` is the whole, which it is exactly if it is so itself.
fn joined(
    of: impl IntoIterator<Item = Narrowed>,
    join: fn(Vec<Condition>) -> Condition,
    neutral: Condition,
    decisive: Condition,
) -> Narrowed {
    let mut of: Vec<Narrowed> = of.into_iter().collect();
    if of.iter().any(|one| one.condition == decisive) {
        let is_exact = of.iter().any(|one| one.condition == decisive && one.is_exact);
        return Narrowed { condition: decisive, is_exact };
    }
    let is_exact = of.iter().all(|one| one.is_exact);
    of.retain(|one| one.condition != neutral);
    let mut conditions: Vec<Condition> = of.into_iter().map(|one| one.condition).collect();
    let condition = match conditions.len() {
        0 => neutral,
        1 => conditions.remove(0),
        _ => join(conditions),
    };
    Narrowed { condition, is_exact }
}

fn compares(key: String, name: &str, comparison: Comparison, value: Value, is_met: bool) -> Narrowed {
    let kind = Some(kind_of(name, &value));
    exactly(Condition::One(One { key, kind, how: How::Compares(comparison), value, is_met }))
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
        let is_equal = comparison == Comparison::Equal;
        match value {
            Value::String(_) if is_equal => compares(name.to_owned(), name, comparison, value.clone(), is_met),
            // Of these a server is only asked whether they are there.
            Value::String(_) | Value::List(_) if is_met => wider(self.kind(name, value, true)),
            Value::String(_) | Value::List(_) => at_most(Condition::All),
            Value::Boolean(than) => {
                let meant = [false, true].into_iter().filter(|truth| comparison.allows(truth.cmp(than)));
                let each = meant.map(|truth| compares(name.to_owned(), name, Comparison::Equal, truth.into(), is_met));
                if is_met { any(each) } else { all(each) }
            }
            Value::Date(_) if is_met || is_equal => compares(date_key(name), name, comparison, value.clone(), is_met),
            Value::Integer(_) | Value::Float(_) if is_met => number(name, comparison, value),
            Value::Integer(_) | Value::Float(_) if is_equal => match whole(value) {
                Some(number) => compares(name.to_owned(), name, comparison, number.into(), false),
                None => at_most(Condition::All),
            },
            Value::Integer(_) | Value::Float(_) | Value::Date(_) => {
                any([self.kind(name, value, false), self.compare(name, opposite(comparison), value, true)])
            }
        }
    }

    fn contains(&self, name: &str, value: &Value, is_met: bool) -> Narrowed {
        let key = if matches!(value, Value::Date(_)) { date_key(name) } else { name.to_owned() };
        let kind = Some(kind_of(name, &Value::List(vec![value.clone()])));
        let each = of_each_type(value).into_iter().map(|value| {
            let (key, kind) = (key.clone(), kind.clone());
            exactly(Condition::One(One { key, kind, how: How::Contains, value, is_met }))
        });
        match (is_met, value) {
            // A text may have it in it, too.
            (true, Value::String(_)) => any(each.chain([wider(self.kind(name, value, true))])),
            (true, _) => any(each),
            (false, Value::String(_)) => wider(all(each)),
            (false, _) => all(each),
        }
    }

    /// Whether there is a value of this one's kind.
    fn kind(&self, name: &str, value: &Value, is_met: bool) -> Narrowed {
        if !self.has_kinds {
            return at_most(Condition::All);
        }
        let (key, value) = (KINDS.to_owned(), kind_of(name, value).into());
        exactly(Condition::One(One { key, kind: None, how: How::Contains, value, is_met }))
    }
}

fn wider(narrowed: Narrowed) -> Narrowed {
    at_most(narrowed.condition)
}

fn number(name: &str, comparison: Comparison, value: &Value) -> Narrowed {
    if let Some(whole) = whole(value) {
        return compares(name.to_owned(), name, comparison, whole.into(), true);
    }
    // Between whole numbers, or beyond what is exact: the next whole ones that include it.
    let near = match value {
        Value::Integer(number) => *number as f64,
        Value::Float(number) => *number,
        _ => return at_most(Condition::All),
    };
    let bound = |comparison, near: f64| {
        let whole = near.clamp(-EXACT, EXACT) as i64;
        compares(name.to_owned(), name, comparison, whole.into(), true)
    };
    let above = || bound(Comparison::AtLeast, near.floor());
    let below = || bound(Comparison::AtMost, near.ceil());
    let (has_above, has_below) = (near > -EXACT, near < EXACT);
    let (from, to) = match comparison {
        Comparison::Equal => (has_above, has_below),
        Comparison::Greater | Comparison::AtLeast => (has_above, false),
        Comparison::Less | Comparison::AtMost => (false, has_below),
    };
    let bounds = [from.then(above), to.then(below)].into_iter().flatten();
    wider(all(bounds))
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
