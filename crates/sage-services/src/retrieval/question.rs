//! A question as a set of weighted terms, to be looked for in passages and sentences.

use std::collections::HashMap;

use crate::embed::LexicalEmbedder;
use crate::terms::for_each_term;

/// The distinct terms of a question, in order, and their weights.
pub(crate) struct Question {
    positions: HashMap<String, usize>,
    /// By position: the rarity of a term.
    pub(crate) weights: Vec<f32>,
    /// Sum of the weights, above 0.
    pub(crate) total: f32,
    /// Whether it begins with "what is" or the like.
    pub(crate) asks_what: bool,
}

impl Question {
    /// `None` when the question holds no word. Stop words count only when there is nothing else.
    pub(crate) fn new(embedder: &LexicalEmbedder, text: &str) -> Option<Self> {
        let mut question = Self { positions: HashMap::new(), weights: Vec::new(), total: 0.0, asks_what: false };
        let mut stop_words = Vec::new();
        for_each_term(text, |term, is_stop_word| {
            if is_stop_word {
                question.asks_what |= question.weights.is_empty() && stop_words == ["what"] && is_copula(term);
                stop_words.push(term.to_owned());
            } else {
                question.add(embedder, term);
            }
        });
        if question.weights.is_empty() {
            stop_words.iter().for_each(|term| question.add(embedder, term));
        }
        question.total = question.weights.iter().sum();
        (question.total > 0.0).then_some(question)
    }

    /// Position of a term among those of the question.
    pub(crate) fn position(&self, term: &str) -> Option<usize> {
        self.positions.get(term).copied()
    }

    fn add(&mut self, embedder: &LexicalEmbedder, term: &str) {
        if !self.positions.contains_key(term) {
            self.positions.insert(term.to_owned(), self.weights.len());
            self.weights.push(embedder.term_weight(term));
        }
    }
}

/// Whether a term joins a thing to what it is.
pub(crate) fn is_copula(term: &str) -> bool {
    matches!(term, "is" | "are" | "does" | "mean")
}
