//! [`Filter`]: which records a search, a count or a deletion is about.

use std::cmp::Ordering;

use super::error::StoreError;
use super::record::check_name;
use super::value::{Metadata, Value};

/// Which records are meant, by their [`Metadata`].
///
/// A record without the named value meets no comparison, and a value of another type than the filter's neither; an
/// integer and a float are both numbers. [`not`](Self::not) turns that around: it is met by all that the other is not.
///
/// ```
/// use sage_services::store::{Filter, Metadata, field};
///
/// let filter = field("lang").equal("en").and(field("year").at_least(2020)).or(field("tags").contains("rust"));
/// let metadata = Metadata::from([("lang".to_owned(), "en".into()), ("year".to_owned(), 2024.into())]);
/// assert!(filter.is_met_by(&metadata));
/// assert!(!field("year").equal(2024).not().is_met_by(&metadata));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Filter {
    /// The value of this name compares so with that given.
    Compare(String, Comparison, Value),
    /// The value of this name is equal to one of these; with none given, no record meets it.
    In(String, Vec<Value>),
    /// The list of this name has an equal value, or the text of this name has this text in it.
    Contains(String, Value),
    /// All are met; with none given, every record meets it.
    And(Vec<Filter>),
    /// One is met, or more; with none given, no record meets it.
    Or(Vec<Filter>),
    /// The other is not met.
    Not(Box<Filter>),
}

/// How two values compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// Equal to.
    Equal,
    /// Less than; earlier; before in the order of bytes.
    Less,
    /// Less than, or equal to.
    AtMost,
    /// Greater than.
    Greater,
    /// Greater than, or equal to.
    AtLeast,
}

/// The deepest that filters are nested.
const DEEPEST: usize = 32;

/// Begins a [`Filter`] on the value of this name.
pub fn field(name: impl Into<String>) -> Field {
    Field(name.into())
}

/// The name of a value, to be compared: see [`field`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field(String);

impl Field {
    /// The value is equal to this.
    pub fn equal(self, value: impl Into<Value>) -> Filter {
        self.compare(Comparison::Equal, value)
    }

    /// The value is less than this.
    pub fn less(self, value: impl Into<Value>) -> Filter {
        self.compare(Comparison::Less, value)
    }

    /// The value is this at most.
    pub fn at_most(self, value: impl Into<Value>) -> Filter {
        self.compare(Comparison::AtMost, value)
    }

    /// The value is greater than this.
    pub fn greater(self, value: impl Into<Value>) -> Filter {
        self.compare(Comparison::Greater, value)
    }

    /// The value is this at least.
    pub fn at_least(self, value: impl Into<Value>) -> Filter {
        self.compare(Comparison::AtLeast, value)
    }

    /// The value is equal to one of these.
    pub fn is_in<T: Into<Value>>(self, values: impl IntoIterator<Item = T>) -> Filter {
        Filter::In(self.0, values.into_iter().map(Into::into).collect())
    }

    /// The list has an equal value, or the text has this text in it.
    pub fn contains(self, value: impl Into<Value>) -> Filter {
        Filter::Contains(self.0, value.into())
    }

    fn compare(self, comparison: Comparison, value: impl Into<Value>) -> Filter {
        Filter::Compare(self.0, comparison, value.into())
    }
}

impl Filter {
    /// Both are met.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match self {
            Self::And(mut all) => {
                all.push(other);
                Self::And(all)
            }
            first => Self::And(vec![first, other]),
        }
    }

    /// One of the two is met, or both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match self {
            Self::Or(mut all) => {
                all.push(other);
                Self::Or(all)
            }
            first => Self::Or(vec![first, other]),
        }
    }

    /// It is not met.
    #[expect(clippy::should_implement_trait, reason = "it reads as `and` and `or` do")]
    #[must_use]
    pub fn not(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// Whether a record with this metadata is meant.
    pub fn is_met_by(&self, metadata: &Metadata) -> bool {
        match self {
            Self::Compare(name, ..) | Self::In(name, _) | Self::Contains(name, _) => {
                metadata.get(name).is_some_and(|found| self.compares_with(found))
            }
            Self::And(all) => all.iter().all(|filter| filter.is_met_by(metadata)),
            Self::Or(any) => any.iter().any(|filter| filter.is_met_by(metadata)),
            Self::Not(filter) => !filter.is_met_by(metadata),
        }
    }

    /// Whether a value meets this comparison.
    pub(super) fn compares_with(&self, found: &Value) -> bool {
        match (self, found) {
            (Self::Compare(_, comparison, value), _) => {
                found.compare(value).is_some_and(|ordering| comparison.allows(ordering))
            }
            (Self::In(_, values), _) => values.iter().any(|value| found.is_equal(value)),
            (Self::Contains(_, value), Value::List(list)) => list.iter().any(|found| found.is_equal(value)),
            (Self::Contains(_, Value::String(part)), Value::String(text)) => text.contains(part),
            _ => false,
        }
    }

    /// Checks what every store relies on.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.refusal(DEEPEST).map_or(Ok(()), |why| Err(StoreError::BadFilter { why }))
    }

    fn refusal(&self, depth: usize) -> Option<String> {
        let Some(below) = depth.checked_sub(1) else { return Some(format!("it is nested more than {DEEPEST} deep")) };
        let of_value = |name: &str, value: &Value| value.refusal().map(|why| format!("{why}, for `{name}`"));
        match self {
            Self::Compare(name, ..) | Self::In(name, _) | Self::Contains(name, _) if check_name(name).is_err() => {
                check_name(name).err()
            }
            Self::Compare(name, comparison, Value::List(_)) if *comparison != Comparison::Equal => {
                Some(format!("a list has no order, for `{name}`"))
            }
            Self::Contains(name, Value::List(_)) => Some(format!("`{name}` is to contain a list, which holds none")),
            Self::Compare(name, _, value) | Self::Contains(name, value) => of_value(name, value),
            Self::In(name, values) => values.iter().find_map(|value| of_value(name, value)),
            Self::And(filters) | Self::Or(filters) => filters.iter().find_map(|filter| filter.refusal(below)),
            Self::Not(filter) => filter.refusal(below),
        }
    }
}

impl Comparison {
    pub(super) fn allows(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::Less => ordering.is_lt(),
            Self::AtMost => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::AtLeast => ordering.is_ge(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        [
            ("year", Value::from(2024)),
            ("price", 9.5.into()),
            ("lang", "en".into()),
            ("open", true.into()),
            ("day", Value::Date("2026-11-01T00:00:00Z".parse().unwrap())),
            ("tags", vec!["rust", "async"].into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    #[test]
    fn comparisons_are_met_by_values_of_their_type() {
        let day = |text: &str| Value::Date(text.parse().unwrap());
        let met = [
            field("year").equal(2024),
            field("year").equal(2024.0),
            field("price").less(10),
            field("price").at_most(9.5),
            field("year").greater(2023.5),
            field("day").at_least(day("2026-10-31T00:00:00Z")),
            field("lang").is_in(["de", "en"]),
            field("tags").contains("rust"),
            field("lang").contains("n"),
            field("tags").equal(vec!["rust", "async"]),
            field("open").equal(true),
            Filter::And(vec![]),
            field("missing").equal(1).not(),
        ];
        let unmet = [
            field("year").equal("2024"),
            field("open").equal(1),
            field("missing").less(1),
            field("year").less(2024),
            field("day").at_least("2026-10-31T00:00:00Z"),
            field("lang").is_in(Vec::<&str>::new()),
            field("tags").contains("rus"),
            field("lang").contains(1),
            field("tags").equal(vec!["async", "rust"]),
            Filter::Or(vec![]),
            field("year").equal(2024).not(),
        ];
        met.iter().for_each(|filter| assert!(filter.is_met_by(&metadata()), "{filter:?}"));
        unmet.iter().for_each(|filter| assert!(!filter.is_met_by(&metadata()), "{filter:?}"));
    }

    #[test]
    fn and_or_and_not_are_as_in_logic() {
        let (yes, no) = (field("year").equal(2024), field("year").equal(1));
        for (first, a) in [(&yes, true), (&no, false)] {
            for (second, b) in [(&yes, true), (&no, false)] {
                let met = |filter: Filter| filter.is_met_by(&metadata());
                assert_eq!(met(first.clone().and(second.clone())), a && b);
                assert_eq!(met(first.clone().or(second.clone())), a || b);
                assert_eq!(met(first.clone().or(second.clone()).not()), !(a || b));
            }
        }
    }

    #[test]
    fn filters_without_a_meaning_are_refused() {
        let mut deep = field("a").equal(1);
        for _ in 0..DEEPEST {
            deep = deep.not();
        }
        for filter in [deep, field("a").less(vec![1]), field("a").contains(vec![1]), field("a").equal(f64::NAN)] {
            assert!(matches!(filter.check(), Err(StoreError::BadFilter { .. })), "{filter:?}");
        }
        assert!(field("a").equal(vec![1]).and(field("b").is_in([1, 2])).check().is_ok());
    }
}
