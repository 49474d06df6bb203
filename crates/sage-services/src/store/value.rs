//! [`Value`] and [`Metadata`]: what a record says besides its text, in types that every store keeps.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use jiff::Timestamp;

/// What a record says besides its text: values by their names.
pub type Metadata = BTreeMap<String, Value>;

/// A value of a record's [`Metadata`].
///
/// ```
/// use sage_services::store::{Metadata, Value};
///
/// let tags = Value::from(vec!["rust", "streams"]);
/// let metadata = Metadata::from([("year".to_owned(), 2026.into()), ("tags".to_owned(), tags)]);
/// assert_eq!(metadata["year"], Value::Integer(2026));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Text.
    String(String),
    /// A whole number.
    Integer(i64),
    /// A finite number.
    Float(f64),
    /// True or false.
    Boolean(bool),
    /// A moment, to the microsecond.
    Date(Timestamp),
    /// Values of one type, none of them a list.
    List(Vec<Value>),
}

impl Value {
    /// The name of its type.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::Integer(_) => "integer",
            Self::Float(_) => "float",
            Self::Boolean(_) => "boolean",
            Self::Date(_) => "date",
            Self::List(_) => "list",
        }
    }

    /// Compares two values; `None` if they are of different types. An integer and a float compare as numbers.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::String(a), Self::String(b)) => Some(a.cmp(b)),
            (Self::Integer(a), Self::Integer(b)) => Some(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(b),
            (Self::Integer(a), Self::Float(b)) => integer_with_float(*a, *b),
            (Self::Float(a), Self::Integer(b)) => integer_with_float(*b, *a).map(Ordering::reverse),
            (Self::Boolean(a), Self::Boolean(b)) => Some(a.cmp(b)),
            (Self::Date(a), Self::Date(b)) => Some(a.cmp(b)),
            (Self::List(a), Self::List(b)) => {
                let equal = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_equal(b));
                equal.then_some(Ordering::Equal)
            }
            _ => None,
        }
    }

    pub(super) fn is_equal(&self, other: &Self) -> bool {
        self.compare(other) == Some(Ordering::Equal)
    }

    /// Why no store takes it, if so.
    pub(super) fn refusal(&self) -> Option<String> {
        match self {
            Self::Float(x) if !x.is_finite() => Some(format!("{x} is not a finite number")),
            Self::Date(date) if date.as_nanosecond() % 1_000 != 0 => {
                Some(format!("{date} is finer than a microsecond"))
            }
            Self::List(values) => values.iter().find_map(|value| match value {
                Self::List(_) => Some("a list holds another list".to_owned()),
                _ if value.kind() != values[0].kind() => {
                    Some(format!("a list holds a {} beside a {}", value.kind(), values[0].kind()))
                }
                _ => value.refusal(),
            }),
            _ => None,
        }
    }
}

/// Exact: an integer above 2⁵³ is not rounded for it.
fn integer_with_float(integer: i64, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    // Beyond an i64 every float is on one side of all of them; within, its whole part is exact as one.
    if float >= 9_223_372_036_854_775_808.0 {
        return Some(Ordering::Less);
    }
    if float < -9_223_372_036_854_775_808.0 {
        return Some(Ordering::Greater);
    }
    let whole = float.floor();
    Some(integer.cmp(&(whole as i64)).then(if float > whole { Ordering::Less } else { Ordering::Equal }))
}

macro_rules! from {
    ($($type:ty => |$given:ident| $value:expr;)*) => {$(
        impl From<$type> for Value {
            fn from($given: $type) -> Self {
                $value
            }
        }
    )*};
}

from! {
    &str => |text| Self::String(text.to_owned());
    String => |text| Self::String(text);
    i64 => |number| Self::Integer(number);
    i32 => |number| Self::Integer(number.into());
    u32 => |number| Self::Integer(number.into());
    f64 => |number| Self::Float(number);
    f32 => |number| Self::Float(number.into());
    bool => |truth| Self::Boolean(truth);
    Timestamp => |date| Self::Date(date);
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_compare_as_numbers() {
        let cases: &[(i64, f64, Ordering)] = &[
            (1, 1.0, Ordering::Equal),
            (1, 1.5, Ordering::Less),
            (-1, -1.5, Ordering::Greater),
            ((1 << 53) + 1, 9_007_199_254_740_992.0, Ordering::Greater),
            (i64::MAX, 9_223_372_036_854_775_808.0, Ordering::Less),
            (i64::MIN, -9_223_372_036_854_775_808.0, Ordering::Equal),
            (i64::MIN, f64::MIN, Ordering::Greater),
        ];
        for &(integer, float, expected) in cases {
            let (integer, float) = (Value::Integer(integer), Value::Float(float));
            assert_eq!(integer.compare(&float), Some(expected), "{integer:?} {float:?}");
            assert_eq!(float.compare(&integer), Some(expected.reverse()), "{integer:?} {float:?}");
        }
        assert_eq!(Value::Integer(1).compare(&Value::Boolean(true)), None);
    }

    #[test]
    fn values_that_no_store_takes_are_refused() {
        assert!(Value::Float(f64::NAN).refusal().is_some());
        assert!(Value::List(vec![1.into(), "a".into()]).refusal().is_some());
        assert!(Value::List(vec![Value::from(vec![1])]).refusal().is_some());
        assert!(Value::from(Timestamp::from_nanosecond(1).unwrap()).refusal().is_some());
        assert!(Value::from(Vec::<i64>::new()).refusal().is_none());
    }

    proptest! {
        #[test]
        fn an_integer_compares_with_a_float_as_with_its_own_value(integer: i64, near in -3_i64..4) {
            let float = integer.saturating_add(near) as f64;
            // In 128 bits every i64 and every whole float of that size is exact.
            let expected = i128::from(integer).cmp(&(float as i128));
            prop_assert_eq!(Value::Integer(integer).compare(&Value::Float(float)), Some(expected));
        }
    }
}
