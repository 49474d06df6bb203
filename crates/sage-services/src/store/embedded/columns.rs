//! [`Columns`]: the metadata of all records, by name, so that a filter is met by looking at one column after another.
//!
//! Each distinct value of a column is kept once and has a code; a row has the code of its value, or 0 for none. A
//! filter compares each distinct value once, and then looks up what each row's code says.
//!
//! Invariants: `uses[code]` is the number of rows with that code; a code without rows is free, and `codes` does not
//! lead to it. A column without rows does not exist.

use std::collections::HashMap;

use crate::store::filter::{Comparison, Filter};
use crate::store::rows::Rows;
use crate::store::value::{Metadata, Value};

#[derive(Debug, Default)]
pub(super) struct Columns {
    columns: HashMap<String, Column>,
    rows: usize,
}

#[derive(Debug, Default)]
struct Column {
    codes_of_rows: Codes,
    /// The value of each code; that of 0, and of those that are free, says nothing.
    values: Vec<Value>,
    uses: Vec<u32>,
    free: Vec<u32>,
    codes: HashMap<Vec<u8>, u32>,
}

/// Codes by row: as a list, or only where there is one.
#[derive(Debug)]
enum Codes {
    Dense(Vec<u32>),
    Sparse(HashMap<u32, u32>),
}

/// A column that more than one in this many rows has is kept as a list: about what an entry of a map takes.
const SPARSE: usize = 8;

impl Columns {
    /// Adds a row behind the last, or sets that of an existing one.
    pub(super) fn set(&mut self, row: u32, metadata: Metadata) {
        if (row as usize) < self.rows {
            self.clear(row);
        } else {
            self.rows = row as usize + 1;
        }
        for (name, value) in metadata {
            self.columns.entry(name).or_default().set(row, value, self.rows);
        }
    }

    /// Moves the last row to this place, whose own goes.
    pub(super) fn swap_remove(&mut self, row: u32) {
        self.clear(row);
        self.rows -= 1;
        let last = u32::try_from(self.rows).expect("rows are counted in 32 bits");
        for column in self.columns.values_mut() {
            column.codes_of_rows.swap_remove(row, last);
        }
    }

    pub(super) fn of(&self, row: u32) -> Metadata {
        let value = |column: &Column| match column.codes_of_rows.get(row) {
            0 => None,
            code => Some(column.values[code as usize].clone()),
        };
        self.columns.iter().filter_map(|(name, column)| Some((name.clone(), value(column)?))).collect()
    }

    /// The rows that meet the filter.
    pub(super) fn rows_that_meet(&self, filter: &Filter) -> Rows {
        match filter {
            Filter::Compare(name, ..) | Filter::In(name, _) | Filter::Contains(name, _) => {
                self.columns.get(name).map_or_else(|| Rows::none(self.rows), |column| column.meets(filter, self.rows))
            }
            Filter::And(all) => {
                all.iter().fold(Rows::all(self.rows), |rows, filter| rows & self.rows_that_meet(filter))
            }
            Filter::Or(any) => {
                any.iter().fold(Rows::none(self.rows), |rows, filter| rows | self.rows_that_meet(filter))
            }
            Filter::Not(filter) => !self.rows_that_meet(filter),
        }
    }

    fn clear(&mut self, row: u32) {
        self.columns.retain(|_, column| {
            column.clear(row);
            !column.codes.is_empty()
        });
    }
}

impl Column {
    fn set(&mut self, row: u32, value: Value, rows: usize) {
        let code = self.code_of(value);
        self.uses[code as usize] += 1;
        self.codes_of_rows.set(row, code, rows);
    }

    fn code_of(&mut self, value: Value) -> u32 {
        let key = key_of(&value);
        if let Some(&code) = self.codes.get(&key) {
            return code;
        }
        if self.values.is_empty() {
            self.values.push(Value::Boolean(false));
            self.uses.push(0);
        }
        let code = self.free.pop().unwrap_or_else(|| {
            self.values.push(Value::Boolean(false));
            self.uses.push(0);
            u32::try_from(self.values.len() - 1).expect("there are no more values than rows")
        });
        self.values[code as usize] = value;
        self.codes.insert(key, code);
        code
    }

    fn clear(&mut self, row: u32) {
        let code = self.codes_of_rows.take(row) as usize;
        if code == 0 {
            return;
        }
        self.uses[code] -= 1;
        if self.uses[code] == 0 {
            let value = std::mem::replace(&mut self.values[code], Value::Boolean(false));
            self.codes.remove(&key_of(&value));
            self.free.push(u32::try_from(code).expect("a code has 32 bits"));
        }
    }

    fn meets(&self, filter: &Filter, rows: usize) -> Rows {
        let mut meets = vec![false; self.values.len()];
        if let Some(forms) = equal_forms(filter) {
            // Looked up rather than compared: there may be as many as rows, on both sides.
            let codes = forms.iter().filter_map(|value| self.codes.get(&key_of(value)));
            codes.for_each(|&code| meets[code as usize] = true);
        } else {
            for (code, meets) in meets.iter_mut().enumerate() {
                *meets = self.uses[code] > 0 && filter.compares_with(&self.values[code]);
            }
        }
        match &self.codes_of_rows {
            Codes::Dense(codes) => Rows::from_fn(rows, |row| codes.get(row).is_some_and(|&code| meets[code as usize])),
            Codes::Sparse(codes) => {
                let mut found = Rows::none(rows);
                let met = codes.iter().filter(|(_, code)| meets[**code as usize]);
                met.for_each(|(&row, _)| found.insert(row));
                found
            }
        }
    }
}

impl Default for Codes {
    fn default() -> Self {
        Self::Sparse(HashMap::new())
    }
}

impl Codes {
    fn get(&self, row: u32) -> u32 {
        match self {
            Self::Dense(codes) => codes.get(row as usize).copied().unwrap_or(0),
            Self::Sparse(codes) => codes.get(&row).copied().unwrap_or(0),
        }
    }

    fn set(&mut self, row: u32, code: u32, rows: usize) {
        match self {
            Self::Dense(codes) => {
                if codes.len() <= row as usize {
                    codes.resize(row as usize + 1, 0);
                }
                codes[row as usize] = code;
            }
            Self::Sparse(codes) => {
                codes.insert(row, code);
                if codes.len() * SPARSE > rows {
                    let mut dense = vec![0; rows];
                    codes.iter().for_each(|(&row, &code)| dense[row as usize] = code);
                    *self = Self::Dense(dense);
                }
            }
        }
    }

    /// Takes a row's code away, and returns it.
    fn take(&mut self, row: u32) -> u32 {
        match self {
            Self::Dense(codes) => codes.get_mut(row as usize).map_or(0, std::mem::take),
            Self::Sparse(codes) => codes.remove(&row).unwrap_or(0),
        }
    }

    fn swap_remove(&mut self, row: u32, last: u32) {
        let moved = self.take(last);
        match self {
            Self::Dense(codes) => {
                codes.truncate(last as usize);
                if row < last && moved != 0 {
                    self.set(row, moved, last as usize);
                }
            }
            Self::Sparse(codes) if row < last && moved != 0 => {
                codes.insert(row, moved);
            }
            Self::Sparse(_) => {}
        }
    }
}

/// All values that meet a filter which asks for equal ones; `None` for other filters, and for lists.
fn equal_forms(filter: &Filter) -> Option<Vec<Value>> {
    let asked = match filter {
        Filter::Compare(_, Comparison::Equal, value) => std::slice::from_ref(value),
        Filter::In(_, values) => values,
        _ => return None,
    };
    let mut forms = Vec::with_capacity(asked.len());
    for value in asked {
        let number = match value {
            Value::List(_) => return None,
            Value::Integer(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            _ => None,
        };
        forms.push(value.clone());
        if let Some(number) = number {
            let others = [Value::Integer(number as i64), Value::Float(number), Value::Float(-number)];
            forms.extend(others.into_iter().filter(|other| other.is_equal(value)));
        }
    }
    Some(forms)
}

/// What tells equal values: their type, and their bits.
fn key_of(value: &Value) -> Vec<u8> {
    fn add(key: &mut Vec<u8>, value: &Value) {
        match value {
            Value::String(text) => {
                key.push(b's');
                key.extend_from_slice(&text.len().to_le_bytes());
                key.extend_from_slice(text.as_bytes());
            }
            Value::Integer(number) => {
                key.push(b'i');
                key.extend_from_slice(&number.to_le_bytes());
            }
            Value::Float(number) => {
                key.push(b'f');
                key.extend_from_slice(&number.to_bits().to_le_bytes());
            }
            Value::Boolean(truth) => key.extend_from_slice(&[b'b', u8::from(*truth)]),
            Value::Date(date) => {
                key.push(b'd');
                key.extend_from_slice(&date.as_microsecond().to_le_bytes());
            }
            Value::List(values) => {
                key.push(b'l');
                values.iter().for_each(|value| add(key, value));
            }
        }
    }
    let mut key = Vec::new();
    add(&mut key, value);
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::filter::field;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            (-2_i64..3).prop_map(Value::Integer),
            prop::sample::select(vec![-1.0, -0.0, 0.0, 0.5, 2.0]).prop_map(Value::Float),
            prop::sample::select(vec!["", "a", "ab", "b"]).prop_map(Value::from),
            any::<bool>().prop_map(Value::Boolean),
            prop::collection::vec(prop::sample::select(vec!["a", "b"]), 0..3).prop_map(Value::from),
        ]
    }

    fn metadata() -> impl Strategy<Value = Metadata> {
        // Names of which most rows have one, and one that few have.
        let names = prop::sample::select(vec!["x", "x", "x", "y", "y", "z", "rare", "x2", "x3", "x4", "x5", "x6"]);
        prop::collection::btree_map(names.prop_map(str::to_owned), value(), 0..4)
    }

    fn filter() -> impl Strategy<Value = Filter> {
        let name = || prop::sample::select(vec!["x", "y", "rare", "missing"]);
        let leaf = prop_oneof![
            (name(), value()).prop_map(|(name, value)| field(name).equal(value)),
            (name(), -2_i64..3).prop_map(|(name, value)| field(name).at_least(value)),
            (name(), prop::collection::vec(value(), 0..3)).prop_map(|(name, values)| field(name).is_in(values)),
            name().prop_map(|name| field(name).contains("a")),
        ];
        leaf.prop_recursive(3, 8, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Filter::And),
                prop::collection::vec(inner.clone(), 0..3).prop_map(Filter::Or),
                inner.prop_map(Filter::not),
            ]
        })
    }

    proptest! {
        #[test]
        fn columns_say_what_the_rows_say(
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4, metadata()), 0..60),
            filter in filter(),
        ) {
            let (mut columns, mut rows) = (Columns::default(), Vec::<Metadata>::new());
            for (at, what, metadata) in changes {
                if what == 0 && !rows.is_empty() {
                    let row = at.index(rows.len());
                    rows.swap_remove(row);
                    columns.swap_remove(row as u32);
                } else if what == 1 && !rows.is_empty() {
                    let row = at.index(rows.len());
                    rows[row] = metadata.clone();
                    columns.set(row as u32, metadata);
                } else {
                    columns.set(rows.len() as u32, metadata.clone());
                    rows.push(metadata);
                }
            }
            for (row, metadata) in (0..).zip(&rows) {
                prop_assert_eq!(&columns.of(row), metadata);
            }
            let expected = Rows::from_fn(rows.len(), |row| filter.is_met_by(&rows[row]));
            prop_assert_eq!(columns.rows_that_meet(&filter), expected);
            for row in (0..rows.len()).rev() {
                columns.swap_remove(row as u32);
            }
            prop_assert!(columns.columns.is_empty(), "nothing is left of values: {:?}", columns);
        }
    }
}
