//! The engine's own operators on plain values, which run for `sage.ops` in a pipeline. They run without the
//! interpreter.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::FixedState;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sage::{AtRecord, Emit, Fault, Operator};

use crate::Record;
use crate::blocks::MOST_RECORDS;
use crate::cutter::TICK;
use crate::error::{Raised, attempt};
use crate::functions::{Function, Link, Piece, added, each_word, is_true, raised, summand};
use crate::spec::Role;
use crate::thread::attach;
use crate::value::{Key, Value};

/// What the chain ends in.
enum End {
    /// Records go on, with their keys if they were given some.
    Records,
    Count(Counts),
    /// The sum of each key, of what a function makes of its records.
    Sum(Link, HashMap<Arc<Key>, Value, FixedState>),
}

/// How often each key has come. Texts are looked up without making a key of them, until one comes that is of a class of
/// its own and may be equal to one of them.
#[derive(Default)]
struct Counts {
    texts: HashMap<Box<str>, i64, FixedState>,
    others: HashMap<Arc<Key>, i64, FixedState>,
    is_mixed: bool,
}

impl Counts {
    /// While they are not mixed.
    fn add_text(&mut self, text: &str) {
        match self.texts.get_mut(text) {
            Some(count) => *count += 1,
            None => drop(self.texts.insert(text.into(), 1)),
        }
    }

    fn add(&mut self, key: Arc<Key>) -> PyResult<()> {
        match key.text() {
            Some(text) if !self.is_mixed => {
                self.add_text(text);
                return Ok(());
            }
            None if !self.is_mixed && key.is_like_text() => {
                self.is_mixed = true;
                for (text, count) in self.texts.drain() {
                    self.others.insert(Arc::new(Key::of_text(text)?), count);
                }
            }
            _ => {}
        }
        *self.others.entry(key).or_default() += 1;
        Ok(())
    }

    fn results(&mut self) -> Vec<(Value, Value)> {
        let texts = self.texts.drain().map(|(text, count)| (Value::Text(text), Value::Int(count)));
        texts.chain(self.others.drain().map(|(key, count)| (key.value(), Value::Int(count)))).collect()
    }
}

/// Operators that follow each other.
pub(crate) struct Native {
    links: Vec<Link>,
    end: End,
    waiting: Vec<Record>,
    /// How many records it was given before those that wait.
    before: u64,
    /// Whether blocks of a container come.
    blocks: bool,
    /// Whether a record becomes several.
    splits: bool,
}

/// The parts of a chain, each as what it does with a function's result and the function of `sage.ops`.
pub(crate) type Parts = Vec<(Role, Py<PyAny>)>;

impl Native {
    pub(crate) fn new(py: Python<'_>, parts: &Parts, blocks: bool) -> PyResult<Self> {
        let mut links = Vec::new();
        let mut end = End::Records;
        for part in parts {
            match part.0 {
                Role::Count => end = End::Count(Counts::default()),
                Role::Sum => end = End::Sum(Link::of(py, part)?, HashMap::default()),
                _ => links.push(Link::of(py, part)?),
            }
        }
        let splits = links.iter().any(|link: &Link| matches!(link.role, Role::FlatMap));
        Ok(Self { links, end, waiting: Vec::new(), before: 0, blocks, splits })
    }

    /// Makes values of what waits, attached once, and runs them through the chain. Where records are still objects by
    /// then, the thread stays attached for many of them, as it would have to attach for each.
    fn run(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        let mut waiting = std::mem::take(&mut self.waiting);
        // How many of the links are done already.
        let mut done = Vec::new();
        if self.blocks || waiting.iter().any(|record| matches!(record.value, Value::Object(_))) {
            attempt(|py| {
                if self.blocks {
                    let blocks = std::mem::take(&mut waiting);
                    for block in blocks {
                        for object in block.value.into_object(py)?.try_iter()? {
                            waiting.push(Record::of(object?));
                        }
                    }
                }
                done = self.make_values(py, &mut waiting);
                Ok(())
            })?;
        }
        done.resize(waiting.len(), 0);
        let has_objects = waiting.iter().any(|record| matches!(record.value, Value::Object(_)));
        let mut records = waiting.drain(..).zip(done);
        if !has_objects {
            records.try_for_each(|(record, done)| self.apply(record, done, out))?;
        }
        while records.len() > 0 {
            let mut held: Vec<Record> = Vec::new();
            let begun = Instant::now();
            let applied: Result<(), Fault> = attach(|_py| {
                // What is called for objects may take long.
                while held.len() < MOST_RECORDS && begun.elapsed() < TICK {
                    let Some((record, done)) = records.next() else { break };
                    self.apply(record, done, &mut held)?;
                }
                Ok(())
            });
            held.into_iter().try_for_each(|record| out.emit(record))?;
            applied?;
            out.look()?;
        }
        drop(records);
        self.waiting = waiting;
        Ok(())
    }

    /// Runs a record through the links behind those that are done.
    fn apply(&mut self, record: Record, done: usize, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        let Record { value, key, time, weight } = record;
        let weight = if self.splits { 0 } else { weight };
        self.before += 1;
        let mut rest = Rest { end: &mut self.end, record: self.before, time, weight, out };
        rest.apply(&self.links[done..], Piece::Value(value), key)
    }

    /// Makes values of objects; returns how many of the links are done by that, for each record.
    fn make_values(&self, py: Python<'_>, records: &mut [Record]) -> Vec<usize> {
        let field = match self.links.first() {
            Some(Link { role: Role::Map, function: Function::Field(name), .. }) => Some(&**name),
            _ => None,
        };
        let mut done = vec![0; records.len()];
        for (record, done) in records.iter_mut().zip(&mut done) {
            let Value::Object(object) = &record.value else { continue };
            let object = object.bind(py);
            // Of a mapping, nothing but the field that is asked for need become a value.
            let found = field.and_then(|name| object.cast_exact::<PyDict>().ok()?.get_item(name).ok()?);
            *done = usize::from(found.is_some());
            let value = Value::of(found.as_ref().unwrap_or(object));
            record.value = value;
        }
        done
    }
}

/// Results that cannot go on yet, as a thread that is attached must not wait.
impl Emit<Record> for Vec<Record> {
    fn emit(&mut self, record: Record) -> Result<(), Fault> {
        self.push(record);
        Ok(())
    }
}

/// Where the results of a record go.
struct Rest<'a, E> {
    end: &'a mut End,
    /// The number of the record.
    record: u64,
    time: i64,
    weight: u32,
    out: &'a mut E,
}

impl<E: Emit<Record>> Rest<'_, E> {
    /// Runs a value through the links that are left.
    fn apply(&mut self, links: &[Link], piece: Piece<'_>, key: Option<Arc<Key>>) -> Result<(), Fault> {
        let Some((link, rest)) = links.split_first() else { return self.arrive(piece, key) };
        match (link.role, &link.function) {
            (Role::Map, Function::Identity) => self.apply(rest, piece, key),
            (Role::Map, _) => {
                let result = self.made(link.call(&piece))?;
                self.apply(rest, Piece::Value(result), key)
            }
            (Role::Filter, _) => {
                let result = self.made(link.call(&piece))?;
                if self.made(is_true(&result))? {
                    self.apply(rest, piece, key)?;
                }
                Ok(())
            }
            (Role::Key, Function::Identity) if rest.is_empty() && self.counts_text(&piece) => Ok(()),
            (Role::Key, _) => {
                let key = self.made(link.call(&piece))?;
                let key = self.made(Key::of_value(key).map_err(raised))?;
                self.apply(rest, piece, Some(Arc::new(key)))
            }
            (Role::FlatMap, Function::Split(separator)) if piece.text().is_some() => {
                let text = piece.text().unwrap_or_default();
                match separator {
                    None => each_word(text, |word| self.apply(rest, Piece::Text(word), key.clone())),
                    Some(part) => {
                        text.split(&**part).try_for_each(|part| self.apply(rest, Piece::Text(part), key.clone()))
                    }
                }
            }
            (_, _) => {
                let items = match link.plainly(&piece) {
                    Some(Value::List(items)) => items,
                    _ => match self.made(link.reference(piece.into_value()))? {
                        Value::List(items) => items,
                        other => vec![other],
                    },
                };
                items.into_iter().try_for_each(|item| self.apply(rest, Piece::Value(item), key.clone()))
            }
        }
    }

    /// What a function made, or its failure at this record.
    fn made<R>(&self, result: Result<R, Raised>) -> Result<R, Fault> {
        result.map_err(|raised| AtRecord::new(self.record, raised).into())
    }

    /// Counts a text that is its own key, without making a key of it.
    fn counts_text(&mut self, piece: &Piece<'_>) -> bool {
        match (&mut *self.end, piece.text()) {
            (End::Count(counts), Some(text)) if !counts.is_mixed => {
                counts.add_text(text);
                true
            }
            _ => false,
        }
    }

    fn arrive(&mut self, piece: Piece<'_>, key: Option<Arc<Key>>) -> Result<(), Fault> {
        match self.end {
            End::Records => {
                let (time, weight) = (self.time, self.weight);
                self.out.emit(Record { value: piece.into_value(), key, time, weight })
            }
            End::Count(counts) => counts.add(key.unwrap_or_default()).map_err(|exception| raised(exception).into()),
            End::Sum(link, sums) => {
                let value = link.call(&piece).map_err(|raised| AtRecord::new(self.record, raised))?;
                match sums.entry(key.unwrap_or_default()) {
                    Entry::Vacant(entry) => {
                        let first = summand(value).map_err(|raised| AtRecord::new(self.record, raised))?;
                        entry.insert(first);
                    }
                    Entry::Occupied(mut entry) => {
                        let so_far = std::mem::replace(entry.get_mut(), Value::None);
                        let sum = added(so_far, value).map_err(|raised| AtRecord::new(self.record, raised))?;
                        entry.insert(sum);
                    }
                }
                Ok(())
            }
        }
    }
}

impl Operator for Native {
    type In = Record;
    type Out = Record;

    fn process(&mut self, record: Record, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        self.waiting.push(record);
        if self.blocks || self.waiting.len() >= MOST_RECORDS { self.run(out) } else { Ok(()) }
    }

    fn flush(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        self.run(out)
    }

    fn finish(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        self.run(out)?;
        let results = match &mut self.end {
            End::Records => return Ok(()),
            End::Count(counts) => counts.results(),
            End::Sum(_, sums) => sums.drain().map(|(key, sum)| (key.value(), sum)).collect(),
        };
        results.into_iter().try_for_each(|(key, result)| out.emit(Record::from(Value::Tuple([key, result].into()))))
    }
}
