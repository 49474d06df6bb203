//! [`Tokens`]: cuts texts into tokens, by a tokenizer that comes with a model.

#[cfg(feature = "minilm")]
use tokenizers::{EncodeInput, TruncationParams};
use tokenizers::{ModelWrapper, Tokenizer};

#[cfg(feature = "minilm")]
use super::bert::Sequence;
use super::model::{ModelError, ModelFile};

/// Cuts texts into tokens.
pub(crate) struct Tokens {
    tokenizer: Tokenizer,
    /// The token that stands for what the tokenizer does not know.
    unknown: Option<u32>,
    /// How many rows a matrix needs that has one for each token.
    limit: usize,
}

impl Tokens {
    /// Reads a `tokenizer.json`. What it says of padding and truncation is not heeded.
    pub(crate) fn of(file: &ModelFile) -> Result<Self, ModelError> {
        let mut tokenizer =
            Tokenizer::from_bytes(&file.bytes).map_err(|error| ModelError::malformed(&file.path, error))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| ModelError::malformed(&file.path, error))?;
        let unknown = unknown_token(&tokenizer, file)?;
        let limit = tokenizer.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        Ok(Self { tokenizer, unknown, limit })
    }

    /// All ids of tokens are below this.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The token that stands for what the tokenizer does not know, if it has one.
    pub(crate) fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    /// The median number of characters in a token, rounded down.
    pub(crate) fn median_length(&self) -> usize {
        let mut lengths: Vec<usize> =
            self.tokenizer.get_vocab(true).keys().map(|token| token.chars().count()).collect();
        lengths.sort_unstable();
        match lengths.len() {
            0 => 0,
            len => usize::midpoint(lengths[len / 2], lengths[(len - 1) / 2]),
        }
    }

    /// The ids of a text's tokens, without those that a model wants around them.
    pub(crate) fn ids(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(ModelError::Tokens)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Cuts what is longer than `most` tokens, which are enough for those that a model wants around texts.
    #[cfg(feature = "minilm")]
    pub(crate) fn cut_at(mut self, most: usize) -> Result<Self, ModelError> {
        let truncation = TruncationParams { max_length: most, ..TruncationParams::default() };
        self.tokenizer.with_truncation(Some(truncation)).map_err(ModelError::Tokens)?;
        Ok(self)
    }

    /// The tokens of a text, or of a pair of texts, with those that a model wants around them.
    #[cfg(feature = "minilm")]
    pub(crate) fn sequence<'t>(&self, text: impl Into<EncodeInput<'t>>) -> Result<Sequence, ModelError> {
        let encoding = self.tokenizer.encode_fast(text, true).map_err(ModelError::Tokens)?;
        Ok(Sequence { ids: encoding.get_ids().to_vec(), kinds: encoding.get_type_ids().to_vec() })
    }
}

fn unknown_token(tokenizer: &Tokenizer, file: &ModelFile) -> Result<Option<u32>, ModelError> {
    let unknown = match tokenizer.get_model() {
        ModelWrapper::BPE(model) => model.unk_token.as_ref(),
        ModelWrapper::WordPiece(model) => Some(&model.unk_token),
        ModelWrapper::WordLevel(model) => Some(&model.unk_token),
        // It does not tell, but its file does.
        ModelWrapper::Unigram(_) => {
            return Ok(file.json()?["model"]["unk_id"].as_u64().and_then(|id| u32::try_from(id).ok()));
        }
    };
    let Some(unknown) = unknown else { return Ok(None) };
    match tokenizer.token_to_id(unknown) {
        Some(id) => Ok(Some(id)),
        None => {
            let reason = format!("`{unknown}` is to stand for what it does not know, and is not in its vocabulary");
            Err(ModelError::malformed(&file.path, reason))
        }
    }
}
