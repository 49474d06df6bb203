//! How often each key has come.
//!
//! Most keys are short texts, of which there are far more records than keys. So a text of a few bytes is counted by a
//! number made of them: that compares and hashes in one step, and lies in the table itself.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use foldhash::fast::FixedState;
use pyo3::PyResult;

use crate::value::{Key, Value};
use crate::words::each_span;

/// As many bytes as a text may have that is counted by a number. The last byte of that says how many they are.
const SHORT: usize = 15;

/// Texts are looked up without making a key of them, until one comes that is of a class of its own and may be equal to
/// one of them.
#[derive(Default)]
pub(crate) struct Counts {
    short: HashMap<u128, i64, FixedState>,
    long: HashMap<Box<str>, i64, FixedState>,
    others: HashMap<Arc<Key>, i64, FixedState>,
    is_mixed: bool,
}

impl Counts {
    /// Whether texts can be counted as they are.
    pub(crate) fn takes_text(&self) -> bool {
        !self.is_mixed
    }

    /// Counts a text, as long as it takes some.
    pub(crate) fn add_text(&mut self, text: &str) {
        if text.len() <= SHORT {
            self.add_short(number(packed(text.as_bytes()), text.len()));
        } else {
            self.add_long(text);
        }
    }

    /// Counts the words of a text, as long as it takes some.
    pub(crate) fn add_words(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let counted: Result<(), Infallible> = each_span(text, |start, end| {
            let length = end - start;
            if length > SHORT {
                self.add_long(&text[start..end]);
            } else {
                // What is behind the word is read with it, and cut off: that is one step for words of any length.
                let bytes = match bytes[start..].first_chunk() {
                    Some(bytes) => u128::from_le_bytes(*bytes) & FIRST[length],
                    None => packed(&bytes[start..end]),
                };
                self.add_short(number(bytes, length));
            }
            Ok(())
        });
        let Ok(()) = counted;
    }

    #[inline]
    fn add_short(&mut self, number: u128) {
        *self.short.entry(number).or_default() += 1;
    }

    fn add_long(&mut self, text: &str) {
        match self.long.get_mut(text) {
            Some(count) => *count += 1,
            None => drop(self.long.insert(text.into(), 1)),
        }
    }

    pub(crate) fn add(&mut self, key: Arc<Key>) -> PyResult<()> {
        match key.text() {
            Some(text) if !self.is_mixed => {
                self.add_text(text);
                return Ok(());
            }
            None if !self.is_mixed && key.is_like_text() => {
                self.is_mixed = true;
                for (text, count) in self.drain_texts() {
                    self.others.insert(Arc::new(Key::of_text(text)?), count);
                }
            }
            _ => {}
        }
        *self.others.entry(key).or_default() += 1;
        Ok(())
    }

    fn drain_texts(&mut self) -> Vec<(Box<str>, i64)> {
        let short = self.short.drain().map(|(number, count)| (text(number), count));
        short.chain(self.long.drain()).collect()
    }

    /// All of them, which are forgotten.
    pub(crate) fn results(&mut self) -> Vec<(Value, Value)> {
        let texts = self.drain_texts().into_iter().map(|(text, count)| (Value::Text(text), Value::Int(count)));
        texts.chain(self.others.drain().map(|(key, count)| (key.value(), Value::Int(count)))).collect()
    }
}

/// The bits of so many first bytes.
const FIRST: [u128; SHORT + 1] = {
    let mut masks = [0; SHORT + 1];
    let mut length = 1;
    while length <= SHORT {
        masks[length] = masks[length - 1] << 8 | 0xFF;
        length += 1;
    }
    masks
};

/// The number of a short text.
#[inline]
fn number(packed: u128, length: usize) -> u128 {
    packed | (length as u128) << (8 * SHORT)
}

/// The short text of a number.
fn text(number: u128) -> Box<str> {
    let bytes = number.to_le_bytes();
    str::from_utf8(&bytes[..usize::from(bytes[SHORT])]).expect("the number was made of a text").into()
}

/// The bytes of a short text, the first one lowest. Where both halves of a text overlap, they agree.
#[inline]
fn packed(bytes: &[u8]) -> u128 {
    let length = bytes.len();
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        u128::from(first) | u128::from(last) << (8 * (length - 8))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        u128::from(u64::from(first) | u64::from(last) << (8 * (length - 4)))
    } else {
        bytes.iter().rev().fold(0, |packed, byte| packed << 8 | u128::from(*byte))
    }
}
