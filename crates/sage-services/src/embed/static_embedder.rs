//! [`StaticEmbedder`]: the vector of a text is the mean of its tokens' vectors.
//!
//! Invariant: every token that the tokenizer can give has a row, and every number is finite. Both are checked when the
//! model is opened.

use std::fmt;
use std::path::Path;

use sage::Service;
use serde_json::Value;

use super::embedder::{EmbedError, Embedder};
use super::id::EmbedderId;
use super::model::{ModelError, ModelFile, ModelFolder, hash_of};
use super::parallel::{in_parallel, processors};
use super::tensors::{Matrix, Tensors};
use super::to_length_one;
use super::tokens::Tokens;

/// Changes when the same files give other vectors than before.
const ALGORITHM: &[u8] = b"static 1";

const NEEDS: &str = "a static embedder has model.safetensors and tokenizer.json, such as a folder that \
                     `model2vec` has saved, or the folder of the Python package `wordllama`";

/// How many tokens of a text count where a model of `model2vec` does not say it.
const MAX_TOKENS: u64 = 512;

/// How many texts a thread takes at once.
const PART: usize = 64;

/// Embeds text by looking up a vector for each token, and taking their mean. Some hundred times as fast as a
/// transformer, and finds synonyms, but knows nothing of the order of words.
///
/// Two layouts of a folder are read:
///
/// - Of `model2vec`: `model.safetensors` with the tensor `embeddings`, and with `weights` and `mapping` if the tokens
///   share vectors; `tokenizer.json`; `config.json`, which says whether vectors are brought to length 1 (`normalize`,
///   false if it is missing) and how many tokens of a text count (`max_length`, 512 if it is missing). Unknown tokens
///   do not count.
/// - Of `wordllama`: one file of weights with the tensor `embedding.weight`, also in a folder `weights`, and one
///   `tokenizer.json` or `*_tokenizer_config.json`, also in a folder `tokenizers`. All tokens count, and vectors are
///   brought to length 1. Static models of `sentence-transformers` are read so too.
///
/// A text without a token that counts gets a vector of zeros.
///
/// ```no_run
/// use sage_services::{Embedder, StaticEmbedder};
///
/// let embedder = StaticEmbedder::open("models/potion-base-8M")?.with_name("potion-base-8M");
/// let vectors = embedder.embed_passages(&["Services stop in reverse order."])?;
/// assert_eq!(vectors[0].len(), embedder.id().dimensions());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct StaticEmbedder {
    id: EmbedderId,
    matrix: Matrix,
    /// The row of each token, where they share rows.
    rows: Option<Vec<u32>>,
    /// What each token's row is multiplied by.
    weights: Option<Vec<f32>>,
    tokens: Tokens,
    counting: Counting,
    threads: usize,
}

/// Which tokens count, and what becomes of their mean.
struct Counting {
    /// A token that does not count.
    skipped: Option<u32>,
    /// How many tokens count, and how many characters they are looked for in.
    most: Option<(usize, usize)>,
    to_length_one: bool,
}

impl StaticEmbedder {
    /// Opens a folder. Its numbers are kept as 32-bit floats.
    ///
    /// # Errors
    ///
    /// A [`ModelError`], which names the file, if one is missing, damaged, or does not fit the others.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, ModelError> {
        let folder = ModelFolder::open(folder.as_ref(), NEEDS)?;
        let weights = weights_file(&folder)?;
        let tokenizer = tokenizer_file(&folder)?;
        let tokens = Tokens::of(&tokenizer)?;
        let tensors = Tensors::of(&weights)?;
        let is_model2vec = tensors.has("embeddings");
        let name = if is_model2vec { "embeddings" } else { "embedding.weight" };
        let matrix = tensors.matrix(name)?;
        let counting = if is_model2vec { Counting::of_model2vec(&folder, &tokens)? } else { Counting::of_wordllama() };
        let (mut rows, mut weights_of_tokens) = (None, None);
        if is_model2vec && tensors.has("mapping") {
            rows = Some(tensors.indices("mapping", matrix.rows)?);
        }
        let mapped = rows.as_ref().map_or(matrix.rows, Vec::len);
        if mapped < tokens.limit() {
            let name = if rows.is_some() { "mapping" } else { name };
            let reason = format!("has no row for each token: {mapped} rows for {} tokens", tokens.limit());
            return Err(tensors.wrong(name, reason));
        }
        if is_model2vec && tensors.has("weights") {
            weights_of_tokens = Some(tensors.vector("weights", mapped)?);
        }
        let hash = hash_of([ALGORITHM, &weights.bytes, &tokenizer.bytes, &counting.settings()]);
        let id = EmbedderId::new("static", matrix.columns).with_weights(hash);
        Ok(Self { id, matrix, rows, weights: weights_of_tokens, tokens, counting, threads: processors() })
    }

    /// Sets how the model is called in its [id](Embedder::id), `static` by default.
    #[must_use]
    pub fn with_name(mut self, name: &str) -> Self {
        self.id = self.id.with_name(name);
        self
    }

    /// Sets how many threads work on one batch of texts, 1 or more; as many as there are processors by default. Batches
    /// of 64 texts and fewer take one.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    fn embed(&self, text: &str) -> Result<Vec<f32>, ModelError> {
        let ids = self.tokens.ids(self.counting.beginning(text))?;
        let most = self.counting.most.map_or(usize::MAX, |(tokens, _)| tokens);
        let mut sum = vec![0.0_f32; self.matrix.columns];
        let mut counted = 0_usize;
        for &id in ids.iter().take(most).filter(|&&id| Some(id) != self.counting.skipped) {
            let token = id as usize;
            let row = self.rows.as_ref().map_or(token, |rows| rows[token] as usize) * sum.len();
            let weight = self.weights.as_ref().map_or(1.0, |weights| weights[token]);
            let vector = &self.matrix.values[row..row + sum.len()];
            sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += weight * x);
            counted += 1;
        }
        if self.counting.to_length_one {
            // A mean has the direction of its sum.
            to_length_one(&mut sum);
        } else {
            sum.iter_mut().for_each(|x| *x /= counted.max(1) as f32);
        }
        Ok(sum)
    }
}

/// Nothing to set up or release: its numbers are freed with its value.
impl Service for StaticEmbedder {}

impl Embedder for StaticEmbedder {
    fn id(&self) -> &EmbedderId {
        &self.id
    }

    fn embed_passages(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let parts: Vec<_> = texts.chunks(PART).collect();
        let embedded = in_parallel(&parts, self.threads, |part| {
            part.iter().map(|text| self.embed(text)).collect::<Result<Vec<_>, _>>()
        });
        let mut vectors = Vec::with_capacity(texts.len());
        for part in embedded {
            vectors.append(&mut part.map_err(|error| EmbedError::failed(&self.id, error))?);
        }
        Ok(vectors)
    }
}

impl fmt::Debug for StaticEmbedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticEmbedder").field("id", &self.id).field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Counting {
    fn of_model2vec(folder: &ModelFolder<'_>, tokens: &Tokens) -> Result<Self, ModelError> {
        let file = folder.read("config.json")?;
        let config = file.json()?;
        let wrong = |name: &str, value: &Value| ModelError::malformed(&file.path, format!("`{name}` is {value}"));
        let to_length_one = match &config["normalize"] {
            Value::Null => false,
            Value::Bool(normalize) => *normalize,
            other => return Err(wrong("normalize", other)),
        };
        let most = match config.get("max_length") {
            None => Some(MAX_TOKENS),
            Some(Value::Null) => None,
            Some(value) => Some(value.as_u64().ok_or_else(|| wrong("max_length", value))?),
        };
        let most = most.map(|most| {
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            (most, most.saturating_mul(tokens.median_length()))
        });
        Ok(Self { skipped: tokens.unknown(), most, to_length_one })
    }

    fn of_wordllama() -> Self {
        Self { skipped: None, most: None, to_length_one: true }
    }

    /// The characters of a text in which tokens are looked for.
    fn beginning<'a>(&self, text: &'a str) -> &'a str {
        let end = self.most.and_then(|(_, characters)| text.char_indices().nth(characters));
        end.map_or(text, |(end, _)| &text[..end])
    }

    /// What of it decides the vectors, apart from the tokenizer.
    fn settings(&self) -> Vec<u8> {
        format!("{:?} {:?} {}", self.skipped, self.most, self.to_length_one).into_bytes()
    }
}

fn weights_file(folder: &ModelFolder<'_>) -> Result<ModelFile, ModelError> {
    for name in ["model.safetensors", "0_StaticEmbedding/model.safetensors"] {
        if let Some(file) = folder.read_if_there(name)? {
            return Ok(file);
        }
    }
    folder.read_only_one(&["", "weights"], ".safetensors")?.ok_or_else(|| folder.lacks("model.safetensors"))
}

fn tokenizer_file(folder: &ModelFolder<'_>) -> Result<ModelFile, ModelError> {
    for name in ["tokenizer.json", "0_StaticEmbedding/tokenizer.json"] {
        if let Some(file) = folder.read_if_there(name)? {
            return Ok(file);
        }
    }
    folder.read_only_one(&["", "tokenizers"], "_tokenizer_config.json")?.ok_or_else(|| folder.lacks("tokenizer.json"))
}
