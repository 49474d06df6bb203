//! [`Contents`]: all records of an embedded store, in memory, and their search.
//!
//! Invariant: `ids`, `texts`, `columns`, `postings` and `vectors` correspond by position, and `rows` leads from each id
//! to it.
//!
//! Knows nothing of files and locks.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::columns::Columns;
use crate::store::filter::Filter;
use crate::store::postings::Postings;
use crate::store::record::{Hit, Record, Search};
use crate::store::rows::Rows;
use crate::store::scan::{Best, Found};
use crate::store::schema::Schema;
use crate::store::vectors::Vectors;

/// Added to a place before its weight is divided by it: that of the paper on reciprocal rank fusion.
const FUSION: f32 = 60.0;
/// The fewest places of each order that are looked at to join the two.
const FUSED: usize = 100;

#[derive(Debug)]
pub(super) struct Contents {
    rows: HashMap<Arc<str>, u32>,
    ids: Vec<Arc<str>>,
    texts: Vec<Box<str>>,
    vectors: Vectors,
    columns: Columns,
    /// `None` where texts are not searched. Made by the first search for words, and kept up from then on.
    postings: Option<OnceLock<Postings>>,
    filtered: Filtered,
}

/// The rows that met the latest filters, since the last change: programs have few filters, and ask often.
type Filtered = Mutex<VecDeque<(Filter, Arc<Rows>)>>;
/// Filters that are remembered.
const FILTERS: usize = 16;

impl Contents {
    pub(super) fn new(schema: &Schema) -> Self {
        Self {
            rows: HashMap::new(),
            ids: Vec::new(),
            texts: Vec::new(),
            vectors: Vectors::new(schema.dimensions, schema.metric),
            columns: Columns::default(),
            postings: schema.text_search.then(OnceLock::new),
            filtered: Filtered::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// How many of these records are not there yet.
    pub(super) fn count_new(&self, records: &[Record]) -> usize {
        records.iter().filter(|record| !self.rows.contains_key(&*record.id)).count()
    }

    pub(super) fn put(&mut self, record: Record) {
        let Record { id, vector, text, metadata } = record;
        let row = match self.rows.get(&*id) {
            Some(&row) => {
                self.vectors.overwrite(row as usize, vector);
                row
            }
            None => {
                let row = u32::try_from(self.ids.len()).expect("the most records fit 32 bits");
                let id: Arc<str> = id.into();
                self.rows.insert(Arc::clone(&id), row);
                self.ids.push(id);
                self.texts.push(Box::default());
                self.vectors.push(vector);
                row
            }
        };
        if let Some(postings) = self.postings.as_mut().and_then(OnceLock::get_mut) {
            postings.set(row, &text);
        }
        self.texts[row as usize] = text.into();
        self.columns.set(row, metadata);
        self.forget_filters();
    }

    /// Removes a record, if it is there. The last row moves to its place.
    pub(super) fn remove(&mut self, id: &str) {
        let Some(row) = self.rows.remove(id) else { return };
        let at = row as usize;
        self.ids.swap_remove(at);
        if let Some(moved) = self.ids.get(at) {
            self.rows.insert(Arc::clone(moved), row);
        }
        self.texts.swap_remove(at);
        self.vectors.swap_remove(at);
        self.columns.swap_remove(row);
        if let Some(postings) = self.postings.as_mut().and_then(OnceLock::get_mut) {
            postings.swap_remove(row);
        }
        self.forget_filters();
    }

    fn forget_filters(&mut self) {
        self.filtered.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn rows_that_meet(&self, filter: &Filter) -> Arc<Rows> {
        let filtered = || self.filtered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, rows)) = filtered().iter().find(|(known, _)| known == filter) {
            return Arc::clone(rows);
        }
        let rows = Arc::new(self.columns.rows_that_meet(filter));
        let mut filtered = filtered();
        filtered.truncate(FILTERS - 1);
        filtered.push_front((filter.clone(), Arc::clone(&rows)));
        rows
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.rows.contains_key(id)
    }

    pub(super) fn get(&self, id: &str) -> Option<Record> {
        self.rows.get(id).map(|&row| self.record(row))
    }

    /// The record of a row. Under cosine its vector is the one given to within rounding.
    pub(super) fn record(&self, row: u32) -> Record {
        let (at, id) = (row as usize, self.ids[row as usize].to_string());
        Record { id, vector: self.vectors.get(at), text: self.texts[at].to_string(), metadata: self.columns.of(row) }
    }

    pub(super) fn ids_that_meet(&self, filter: &Filter) -> Vec<Arc<str>> {
        self.rows_that_meet(filter).iter().map(|row| Arc::clone(&self.ids[row as usize])).collect()
    }

    pub(super) fn count_that_meet(&self, filter: &Filter) -> usize {
        self.rows_that_meet(filter).count()
    }

    pub(super) fn search(&self, search: Search) -> Vec<Hit> {
        let allowed = search.filter.as_ref().map(|filter| self.rows_that_meet(filter));
        let allowed = allowed.as_deref();
        let found = match (search.vector, search.text) {
            (Some(vector), None) => self.nearest(vector, allowed, search.k),
            (None, Some(text)) => self.best_by_words(&text, allowed, search.k),
            (Some(vector), Some(text)) => {
                let each = search.k.max(FUSED);
                let by_vector = self.nearest(vector, allowed, each);
                self.fused([by_vector, self.best_by_words(&text, allowed, each)], search.weights, search.k)
            }
            (None, None) => Vec::new(),
        };
        found.into_iter().map(|found| self.hit(found)).collect()
    }

    fn hit(&self, Found { row, score }: Found) -> Hit {
        let at = row as usize;
        let (id, text) = (self.ids[at].to_string(), self.texts[at].to_string());
        Hit { id, score, text, metadata: self.columns.of(row) }
    }

    fn nearest(&self, query: Vec<f32>, allowed: Option<&Rows>, k: usize) -> Vec<Found> {
        self.vectors.nearest(query, allowed, k, |a, b| self.by_id(a, b))
    }

    /// Rows that score the same come in the order of their ids, whatever the order in which they were stored.
    fn by_id(&self, a: u32, b: u32) -> Ordering {
        self.ids[a as usize].cmp(&self.ids[b as usize])
    }

    pub(super) fn vectors(&self) -> &Vectors {
        &self.vectors
    }

    pub(super) fn vectors_mut(&mut self) -> &mut Vectors {
        &mut self.vectors
    }

    fn best_by_words(&self, text: &str, allowed: Option<&Rows>, k: usize) -> Vec<Found> {
        let mut best = Best::new(k, self.ids.len(), |a, b| self.by_id(a, b));
        if let Some(postings) = &self.postings {
            postings.get_or_init(|| Postings::of(&self.texts)).search(text, allowed, &mut best);
        }
        best.into_sorted()
    }

    fn fused(&self, orders: [Vec<Found>; 2], weights: (f32, f32), k: usize) -> Vec<Found> {
        let mut scores: HashMap<u32, f32> = HashMap::new();
        for (order, weight) in orders.into_iter().zip([weights.0, weights.1]) {
            for (place, found) in (1_u16..).zip(order) {
                *scores.entry(found.row).or_default() += weight / (FUSION + f32::from(place));
            }
        }
        let mut best = Best::new(k, self.ids.len(), |a, b| self.by_id(a, b));
        scores.into_iter().for_each(|(row, score)| best.offer(row, score));
        best.into_sorted()
    }
}
