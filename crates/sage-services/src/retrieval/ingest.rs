//! [`Ingest`]: brings a collection to what a set of documents says now.
//!
//! What a record was made of is in its own metadata, so there is no other file that could tell otherwise: a hash of
//! the passage, which decides whether it has to be embedded again, and one of its whole document.
//!
//! Invariants:
//! 1. A passage is embedded only if no record with its id has its hash, which covers the embedder.
//! 2. Old records of a document are deleted only by [`sweep`](Ingest::sweep), after the new ones are stored. A run that
//!    is killed leaves old records, new ones or both, and the next run goes on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::documents::Passage;
use crate::store::{Filter, Record, StoreError, Value, VectorStore, field};

use super::passage::{DOCUMENT_HASH, PASSAGE_HASH, PATH};

/// Documents that one filter tells from others: a filter goes to a server as text.
const SWEPT_AT_ONCE: usize = 250;
/// Characters of a hash in hexadecimal: 128 bits.
const HASH: usize = 32;

/// Brings a collection to what a set of documents says now: only passages that changed are embedded, and what is gone
/// is deleted.
///
/// Each run has an `Ingest` of its own. It is given the passages of every document ([`plan`](Self::plan)), or told that
/// one could not be read ([`keep`](Self::keep)); at the end [`sweep`](Self::sweep) deletes the passages of all others.
/// A collection belongs to one set of documents: their paths tell them apart.
///
/// ```
/// use sage_services::store::{Embedded, Schema, VectorStore};
/// use sage_services::{Chunker, Embedder, Format, Ingest, LexicalEmbedder, wait};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let embedder = LexicalEmbedder::default();
/// let store = VectorStore::new(Schema::made_by("guide", embedder.id()), Embedded::in_memory())?;
/// wait(store.open())?;
/// let mut embedded = Vec::new();
/// for text in ["# Stops\n\nServices stop last.", "# Stops\n\nServices stop last.\n\n# Starts\n\nFirst."] {
///     let ingest = Ingest::new(embedder.id());
///     let passages = Chunker::default().chunks("guide.md", Format::Markdown, text);
///     let plan = wait(ingest.plan(&store, vec![passages]))?;
///     embedded.push(plan.texts().len());
///     let vectors = embedder.embed_passages(&plan.texts().iter().map(String::as_str).collect::<Vec<_>>())?;
///     wait(store.upsert(plan.into_records(vectors)))?;
///     wait(ingest.sweep(&store))?;
/// }
/// assert_eq!((embedded, wait(store.count())?), (vec![1, 1], 2));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Ingest {
    embedder: String,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The hash of each document, by path.
    documents: BTreeMap<Arc<str>, String>,
    /// Documents that could not be read.
    kept: BTreeSet<String>,
}

/// The passages of some documents, to be compared with what a store has of them: see [`Ingest::look_up`].
#[derive(Debug)]
pub struct Lookup {
    passages: Vec<(Passage, Hashes)>,
}

/// What has to be done for some documents: see [`Ingest::plan`].
#[derive(Debug, Default, Clone)]
pub struct Plan {
    changed: Vec<(Passage, Hashes)>,
    moved: Vec<Record>,
    unchanged: Vec<Passage>,
}

#[derive(Debug, Clone)]
struct Hashes {
    passage: String,
    document: String,
}

impl Ingest {
    /// Begins a run, with the [id](crate::EmbedderId) of what makes the vectors.
    pub fn new(embedder: impl fmt::Display) -> Self {
        Self { embedder: embedder.to_string(), seen: Mutex::default() }
    }

    /// Says what has to be done for these documents, of each of which all passages are given. Documents that are given
    /// together are looked up together. Of two documents with one path the later counts.
    ///
    /// # Errors
    /// What the store cannot do.
    pub async fn plan(&self, store: &VectorStore, documents: Vec<Vec<Passage>>) -> Result<Plan, StoreError> {
        let lookup = self.look_up(documents);
        let there = store.get(&lookup.ids()).await?;
        Ok(lookup.plan(there))
    }

    /// As [`plan`](Self::plan), for a caller that asks the store itself.
    pub fn look_up(&self, documents: Vec<Vec<Passage>>) -> Lookup {
        let mut last = BTreeMap::new();
        for document in documents {
            if let Some(first) = document.first() {
                last.insert(Arc::clone(&first.path), document);
            }
        }
        Lookup { passages: last.into_values().flat_map(|document| self.hashed(document)).collect() }
    }

    /// Has [`sweep`](Self::sweep) leave a document alone that could not be read this time.
    pub fn keep(&self, path: impl Into<String>) {
        self.seen().kept.insert(path.into());
    }

    /// Deletes all passages that are of no document which was given to [`plan`](Self::plan), and says how many. What
    /// those documents were before is gone with it. Records without a path, which are no passages, stay.
    ///
    /// It is for the end, once everything that was planned is stored: a run that has not seen all documents must not
    /// call it. If it saw none, it deletes everything.
    ///
    /// # Errors
    /// What the store cannot do.
    pub async fn sweep(&self, store: &VectorStore) -> Result<usize, StoreError> {
        let mut deleted = 0;
        for gone in self.gone() {
            deleted += store.delete_where(gone).await?;
        }
        Ok(deleted)
    }

    /// What [`sweep`](Self::sweep) deletes, for a caller that asks the store itself: records that meet one of these.
    pub fn gone(&self) -> Vec<Filter> {
        let Seen { documents, kept } = &*self.seen();
        let documents: Vec<(&Arc<str>, &String)> = documents.iter().collect();
        let mut filters = Vec::new();
        let mut from = "";
        for at in (0..documents.len().max(1)).step_by(SWEPT_AT_ONCE) {
            let end = documents.len().min(at + SWEPT_AT_ONCE);
            let hashes = documents[at..end].iter().map(|(_, hash)| (*hash).clone());
            let mut gone = field(PATH).at_least(from).and(field(DOCUMENT_HASH).is_in(hashes).not());
            if let Some((next, _)) = documents.get(end) {
                gone = gone.and(field(PATH).less(&***next));
                from = next;
            }
            if !kept.is_empty() {
                gone = gone.and(field(PATH).is_in(kept.iter().cloned()).not());
            }
            filters.push(gone);
        }
        filters
    }

    fn hashed(&self, document: Vec<Passage>) -> Vec<(Passage, Hashes)> {
        let mut whole = blake3::Hasher::new();
        let passages: Vec<(Passage, String)> = document
            .into_iter()
            .map(|passage| {
                let mut hasher = blake3::Hasher::new();
                add(&mut hasher, &self.embedder);
                add(&mut hasher, &passage.text_with_heading());
                let hash = hasher.finalize().to_hex()[..HASH].to_owned();
                add(&mut whole, &hash);
                add_place(&mut whole, &passage);
                (passage, hash)
            })
            .collect();
        let document = whole.finalize().to_hex()[..HASH].to_owned();
        if let Some((first, _)) = passages.first() {
            let mut seen = self.seen();
            seen.kept.remove(&*first.path);
            seen.documents.insert(Arc::clone(&first.path), document.clone());
        }
        let hashes = |passage| Hashes { passage, document: document.clone() };
        passages.into_iter().map(|(passage, hash)| (passage, hashes(hash))).collect()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// With its length, so that two texts are not one.
fn add(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

/// Where a passage stands, and what else is known of it.
fn add_place(hasher: &mut blake3::Hasher, passage: &Passage) {
    let Passage { path, first_line, last_line, bytes, pages, heading, metadata, .. } = passage;
    // Of two documents that are the same, one may be gone.
    add(hasher, path);
    let (first_page, last_page) = pages.unwrap_or_default();
    for number in [*first_line, *last_line, bytes.start, bytes.end, first_page, last_page] {
        hasher.update(&(number as u64).to_le_bytes());
    }
    add(hasher, heading);
    for (name, value) in &**metadata {
        add(hasher, name);
        add(hasher, &value.to_string());
    }
}

impl Lookup {
    /// The ids of the records to ask the store for.
    pub fn ids(&self) -> Vec<String> {
        self.passages.iter().map(|(passage, _)| passage.id()).collect()
    }

    /// Says what has to be done, given what the store has for each of the [ids](Self::ids), in their order.
    ///
    /// # Panics
    /// When there are not as many as ids.
    pub fn plan(self, there: Vec<Option<Record>>) -> Plan {
        assert_eq!(there.len(), self.passages.len(), "each id is looked up");
        let mut plan = Plan::default();
        for ((passage, hashes), there) in self.passages.into_iter().zip(there) {
            plan.add(passage, hashes, there);
        }
        plan
    }
}

impl Plan {
    /// The texts that have to be embedded.
    pub fn texts(&self) -> Vec<String> {
        self.changed.iter().map(|(passage, _)| passage.text_with_heading()).collect()
    }

    /// How many texts have to be embedded.
    pub fn changed(&self) -> usize {
        self.changed.len()
    }

    /// The passages that are stored as they are. An embedder that counts words, as the
    /// [lexical](crate::LexicalEmbedder::learn) one, has to be told of them.
    pub fn unchanged(&self) -> &[Passage] {
        &self.unchanged
    }

    /// The records to store, with the vectors of [`texts`](Self::texts) in their order: those that changed, and those
    /// of which only the place did. A passage whose vector is zero cannot be found, and is left out.
    ///
    /// # Panics
    /// When there are not as many vectors as texts.
    pub fn into_records(self, vectors: Vec<Vec<f32>>) -> Vec<Record> {
        assert_eq!(vectors.len(), self.changed.len(), "each text has a vector");
        let has_direction = |(_, vector): &(_, Vec<f32>)| vector.iter().any(|x| *x != 0.0);
        let changed = self.changed.into_iter().zip(vectors).filter(has_direction);
        let changed = changed.map(|((passage, hashes), vector)| hashes.stamp(passage.record(vector)));
        changed.chain(self.moved).collect()
    }

    fn add(&mut self, passage: Passage, hashes: Hashes, there: Option<Record>) {
        let has = |record: &Record, name: &str, hash: &str| record.metadata.get(name) == Some(&Value::from(hash));
        match there {
            Some(there) if has(&there, PASSAGE_HASH, &hashes.passage) => {
                if !has(&there, DOCUMENT_HASH, &hashes.document) {
                    self.moved.push(hashes.stamp(passage.record(there.vector)));
                }
                self.unchanged.push(passage);
            }
            _ => self.changed.push((passage, hashes)),
        }
    }
}

impl Hashes {
    fn stamp(self, record: Record) -> Record {
        record.with(PASSAGE_HASH, self.passage).with(DOCUMENT_HASH, self.document)
    }
}
