//! The engine's own operators on plain values, which run for `sage.ops` in a pipeline. They run without the
//! interpreter.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::FixedState;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sage::{AtRecord, BoxError, CloseContext, Emit, Fault, Operator};

use crate::Record;
use crate::blocks::MOST_RECORDS;
use crate::counts::Counts;
use crate::cutter::TICK;
use crate::error::{Raised, attempt};
use crate::functions::{Function, Link, Piece, added, is_true, raised, summand};
use crate::spec::Role;
use crate::texts::Texts;
use crate::thread::attach;
use crate::value::{Key, Value};
use crate::words::each_word;

/// What the chain ends in.
enum End {
    /// Records go on, with their keys if they were given some.
    Records,
    Count(Counts),
    /// The sum of each key, of what a function makes of its records.
    Sum(Link, HashMap<Arc<Key>, Value, FixedState>),
}

/// Operators that follow each other.
pub(crate) struct Native {
    links: Vec<Link>,
    end: End,
    waiting: Vec<Record>,
    /// The texts of the last block, which are let go of when the thread is attached again.
    texts: Texts,
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
        Ok(Self { links, end, waiting: Vec::new(), texts: Texts::default(), before: 0, blocks, splits })
    }

    /// Makes values of what waits, attached once, and runs them through the chain. Where records are still objects by
    /// then, the thread stays attached for many of them, as it would have to attach for each.
    fn run(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        let mut waiting = std::mem::take(&mut self.waiting);
        // How many of the links are done already.
        let mut done = Vec::new();
        if self.blocks || waiting.iter().any(|record| matches!(record.value, Value::Object(_))) {
            attempt(|py| {
                self.texts.clear(py);
                if self.blocks {
                    let blocks = std::mem::take(&mut waiting);
                    for block in blocks {
                        for object in block.value.into_object(py)?.try_iter()? {
                            // Behind the first that is no text, all have to become values.
                            let object = if waiting.is_empty() { self.texts.take(object?) } else { Some(object?) };
                            waiting.extend(object.map(Record::of));
                        }
                    }
                }
                done = self.make_values(py, &mut waiting);
                Ok(())
            })?;
            self.apply_to_texts(out)?;
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

    /// Runs the texts of a block through the chain, as they lie in Python's objects.
    fn apply_to_texts(&mut self, out: &mut impl Emit<Record>) -> Result<(), Fault> {
        for (text, weight) in self.texts.iter() {
            let weight = if self.splits { 0 } else { u32::try_from(weight).unwrap_or(u32::MAX) };
            self.before += 1;
            let mut rest = Rest { end: &mut self.end, record: self.before, time: 0, weight, out };
            rest.apply(&self.links, Piece::Text(text), None)?;
        }
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
            (Role::Map, _) => match link.text(&piece) {
                Some(Cow::Borrowed(text)) => self.apply(rest, Piece::Text(text), key),
                Some(Cow::Owned(text)) => self.apply(rest, Piece::Value(Value::Text(text.into())), key),
                None => {
                    let result = self.made(link.call(&piece))?;
                    self.apply(rest, Piece::Value(result), key)
                }
            },
            (Role::Filter, _) => {
                let result = self.made(link.call(&piece))?;
                if self.made(is_true(&result))? {
                    self.apply(rest, piece, key)?;
                }
                Ok(())
            }
            (Role::Key, _) if rest.is_empty() && self.counts_text(link, &piece) => Ok(()),
            (Role::Key, _) => {
                let key = self.made(link.call(&piece))?;
                let key = self.made(Key::of_value(key).map_err(raised))?;
                self.apply(rest, piece, Some(Arc::new(key)))
            }
            (Role::FlatMap, Function::Split(separator)) if piece.text().is_some() => {
                let text = piece.text().unwrap_or_default();
                match separator {
                    None if self.counts_words(rest, text) => Ok(()),
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

    /// Counts a text that a function makes a key of, without making one.
    fn counts_text(&mut self, link: &Link, piece: &Piece<'_>) -> bool {
        let End::Count(counts) = &mut *self.end else { return false };
        let text = if counts.takes_text() { link.text(piece) } else { None };
        text.iter().for_each(|text| counts.add_text(text));
        text.is_some()
    }

    /// Counts the words of a text, if the links that are left do no more than that.
    fn counts_words(&mut self, links: &[Link], text: &str) -> bool {
        match (links, &mut *self.end) {
            ([Link { role: Role::Key, function: Function::Identity, .. }], End::Count(counts))
                if counts.takes_text() =>
            {
                counts.add_words(text);
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

    fn close(&mut self, _cx: &CloseContext) -> Result<(), BoxError> {
        if !self.texts.is_empty() {
            attach(|py| self.texts.clear(py));
        }
        Ok(())
    }
}
