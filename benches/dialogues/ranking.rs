//! The turns of a dialogue in a memory, and in a plain store, which it is compared with.

use std::error::Error;

use sage_services::memory::{Memory, NewTurn, Recall, Scope};
use sage_services::store::{Embedded, Hit, Record, Schema, Search, VectorStore};
use sage_services::{Embedder, wait};

use super::labelled::{Dialogue, K};

/// Each dialogue in a store of its own, turns embedded by their texts alone.
pub(crate) struct Turns<'a> {
    embedder: &'a dyn Embedder,
    stores: Vec<(String, VectorStore)>,
}

impl<'a> Turns<'a> {
    pub(crate) fn new(embedder: &'a dyn Embedder, dialogues: &[Dialogue]) -> Result<Self, Box<dyn Error>> {
        let mut stores = Vec::new();
        for Dialogue { name, turns, .. } in dialogues {
            let schema = Schema::made_by("turns", embedder.id()).with_text_search();
            let store = VectorStore::new(schema, Embedded::in_memory())?;
            wait(store.open())?;
            let texts: Vec<&str> = turns.iter().map(|turn| &*turn.text).collect();
            let vectors = embedder.embed_passages(&texts)?;
            let records =
                turns.iter().zip(vectors).map(|(turn, vector)| Record::new(&*turn.id, vector).text(&*turn.text));
            wait(store.upsert(records.collect()))?;
            stores.push((name.clone(), store));
        }
        Ok(Self { embedder, stores })
    }

    /// The baseline: plain BM25.
    pub(crate) fn by_words(&self, dialogue: &Dialogue, question: &str) -> Result<Vec<String>, Box<dyn Error>> {
        self.search(dialogue, Search::text(question, K))
    }

    /// By vectors alone. A question without a vector finds nothing: see [`Self::vector`].
    pub(crate) fn by_vectors(&self, dialogue: &Dialogue, question: &str) -> Result<Vec<String>, Box<dyn Error>> {
        self.vector(question)?.map_or(Ok(Vec::new()), |vector| self.search(dialogue, Search::vector(vector, K)))
    }

    /// Both, fused by the store.
    pub(crate) fn fused(&self, dialogue: &Dialogue, question: &str) -> Result<Vec<String>, Box<dyn Error>> {
        match self.vector(question)? {
            Some(vector) => self.search(dialogue, Search::hybrid(vector, question, K)),
            None => self.by_words(dialogue, question),
        }
    }

    /// A question's vector; `None` if it is all zeros, as the lexical embedder's is where it knows no word.
    fn vector(&self, question: &str) -> Result<Option<Vec<f32>>, Box<dyn Error>> {
        let vector = self.embedder.embed_queries(&[question])?.remove(0);
        Ok(Some(vector).filter(|vector| vector.iter().any(|&x| x != 0.0)))
    }

    fn search(&self, dialogue: &Dialogue, search: Search) -> Result<Vec<String>, Box<dyn Error>> {
        let store = self.stores.iter().find(|(name, _)| *name == dialogue.name).map(|(_, store)| store);
        let hits = wait(store.ok_or("a dialogue that is not stored")?.search(search))?;
        Ok(hits.into_iter().map(|Hit { id, .. }| id).collect())
    }
}

/// All dialogues in one memory, each of another tenant, asked on the day of the last turn. Its weights are those that
/// every memory has unless told otherwise.
pub(crate) struct Remembered<'a> {
    embedder: Option<&'a dyn Embedder>,
    memory: Memory,
}

impl<'a> Remembered<'a> {
    pub(crate) fn new(embedder: Option<&'a dyn Embedder>, dialogues: &[Dialogue]) -> Result<Self, Box<dyn Error>> {
        let latest = dialogues.iter().flat_map(|dialogue| &dialogue.turns).map(|turn| turn.at).max();
        let latest = latest.ok_or("there are no turns")?;
        let mut memory = Memory::in_memory().clock(move || latest);
        if let Some(embedder) = embedder {
            memory = memory.vectors_made_by(embedder.id().clone());
        }
        memory.open()?;
        for Dialogue { name, turns, .. } in dialogues {
            for turn in turns {
                let mut new = NewTurn::new(&*turn.role, &*turn.text).id(&*turn.id).said(turn.at);
                if let Some(embedder) = embedder {
                    // As the memory itself does where it has an embedder.
                    new = new.vector(embedder.embed_passages(&[&format!("{}: {}", turn.role, turn.text)])?.remove(0));
                }
                memory.append(&Scope::tenant(&**name).session(&*turn.session), vec![new])?;
            }
        }
        Ok(Self { embedder, memory })
    }

    pub(crate) fn recalled(&self, dialogue: &Dialogue, question: &str) -> Result<Vec<String>, Box<dyn Error>> {
        let mut recall = Recall::new(question).k(K);
        if let Some(embedder) = self.embedder {
            recall = recall.vector(embedder.embed_queries(&[question])?.remove(0));
        }
        let recalled = self.memory.recall(&Scope::tenant(&*dialogue.name), recall)?;
        Ok(recalled.into_iter().map(|recalled| recalled.turn.id).collect())
    }
}
