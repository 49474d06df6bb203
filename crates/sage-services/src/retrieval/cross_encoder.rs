//! [`CrossEncoder`]: orders retrieved passages by a model that reads each of them beside the question.

use std::fmt;
use std::path::Path;

use sage::Service;

use crate::embed::ModelError;
use crate::embed::inside::{
    Bert, BertConfig, Linear, ModelFolder, Tensors, Tokens, in_parallel, open_bert, processors,
};
use crate::store::Hit;

const NEEDS: &str = "a cross-encoder has config.json, model.safetensors and tokenizer.json, as \
                     cross-encoder/ms-marco-MiniLM-L6-v2 and BAAI/bge-reranker-base have";

/// How many tokens of a question and a passage count together.
const MAX_TOKENS: usize = 512;

/// How many passages a thread cuts into tokens at once.
const PART: usize = 16;

/// Scores passages by a transformer that reads question and passage together. It is the most exact way to order some
/// tens of passages, and too slow for more: retrieve widely, rerank, keep a few.
///
/// It reads folders with a model of the kinds of BERT and XLM-RoBERTa that gives one score: `config.json`,
/// `model.safetensors` and `tokenizer.json`. A question and a passage that have more than 512 tokens together are cut,
/// the longer one first.
///
/// ```no_run
/// use sage_services::CrossEncoder;
/// use sage_services::store::Hit;
///
/// let encoder = CrossEncoder::open("models/ms-marco-MiniLM-L6-v2")?;
/// let hits = vec![Hit::new("a", 0.5, "Sinks write records."), Hit::new("b", 0.4, "Services stop last.")];
/// let best = encoder.rerank("When do services stop?", hits, 1)?;
/// assert_eq!(best[0].text, "Services stop last.");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct CrossEncoder {
    bert: Bert,
    tokens: Tokens,
    /// Applied to the first token, with the hyperbolic tangent after it.
    dense: Linear,
    score: Linear,
    threads: usize,
}

impl CrossEncoder {
    /// Opens a folder. Its numbers are kept as 32-bit floats.
    ///
    /// # Errors
    ///
    /// A [`ModelError`], which names the file, if one is missing, damaged, or does not fit the others.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, ModelError> {
        let folder = ModelFolder::open(folder.as_ref(), NEEDS)?;
        let config = BertConfig::of(&folder.read("config.json")?)?;
        let weights = folder.read("model.safetensors")?;
        let tokenizer = folder.read("tokenizer.json")?;
        let (bert, tokens, _) = open_bert(&config, &weights, &tokenizer, MAX_TOKENS)?;
        let names = if config.is_roberta() {
            ["classifier.dense", "classifier.out_proj"]
        } else {
            ["bert.pooler.dense", "classifier"]
        };
        let tensors = Tensors::of(&weights)?;
        let dense = Linear::of(&tensors, names[0], bert.hidden(), bert.hidden())?;
        let score = Linear::of(&tensors, names[1], bert.hidden(), 1)?;
        Ok(Self { bert, tokens, dense, score, threads: processors() })
    }

    /// Sets how many threads work on one question, 1 or more; as many as there are processors by default.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// How well each text answers the question, from 0 to 1, in the order of the texts. Blocks until it has all scores.
    ///
    /// # Errors
    ///
    /// [`ModelError::Tokens`] if the tokenizer fails at a text.
    pub fn scores(&self, question: &str, texts: &[&str]) -> Result<Vec<f32>, ModelError> {
        Ok(self.logits(question, texts)?.into_iter().map(share).collect())
    }

    /// Reorders `hits` by how well they answer `question` and keeps the best `keep`, with new scores from 0 to 1. Those
    /// that score the same keep their order. Blocks until it has read them all.
    ///
    /// # Errors
    ///
    /// As those of [`scores`](Self::scores).
    pub fn rerank(&self, question: &str, hits: Vec<Hit>, keep: usize) -> Result<Vec<Hit>, ModelError> {
        let texts: Vec<&str> = hits.iter().map(|hit| &*hit.text).collect();
        let logits = self.logits(question, &texts)?;
        let mut scored: Vec<_> = hits.into_iter().zip(logits).collect();
        // As shares, those of large numbers would be the same.
        scored.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        scored.truncate(keep);
        Ok(scored.into_iter().map(|(hit, logit)| Hit { score: share(logit), ..hit }).collect())
    }

    fn logits(&self, question: &str, texts: &[&str]) -> Result<Vec<f32>, ModelError> {
        let parts: Vec<_> = texts.chunks(PART).collect();
        let cut = in_parallel(&parts, self.threads, |part| {
            part.iter().map(|&text| self.tokens.sequence((question, text))).collect::<Result<Vec<_>, _>>()
        });
        let mut sequences = Vec::with_capacity(texts.len());
        for part in cut {
            sequences.append(&mut part?);
        }
        Ok(self.bert.run(&sequences, self.threads, |rows| {
            let mut first = self.dense.apply(&rows[..self.bert.hidden()]);
            first.iter_mut().for_each(|x| *x = x.tanh());
            self.score.apply(&first)[0]
        }))
    }
}

/// Nothing to set up or release: its numbers are freed with its value.
impl Service for CrossEncoder {}

impl fmt::Debug for CrossEncoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrossEncoder").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// The logistic function.
fn share(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}
