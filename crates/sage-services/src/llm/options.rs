//! [`LlmOptions`]: where a model is, and how it is asked. Invariant: nothing that is shown has the key in it.

use std::env::{self, VarError};
use std::sync::Arc;
use std::time::Duration;

use super::error::LlmError;
use super::prices::Prices;
use crate::connection::{Address, Key};

/// Where a model is, and how it is asked.
///
/// ```
/// use std::time::Duration;
/// use sage_services::llm::LlmOptions;
///
/// let options = LlmOptions::new("gpt-4o-mini")
///     .base_url("http://localhost:8080/v1")
///     .key("sk-secret")
///     .connect_timeout(Duration::from_secs(2));
/// assert!(!format!("{options:?}").contains("secret"));
/// ```
#[derive(Debug, Clone)]
pub struct LlmOptions {
    pub(super) base_url: Address,
    pub(super) key: Option<Key>,
    pub(super) model: String,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Duration,
    pub(super) largest_answer: usize,
    pub(super) most_inputs: usize,
    pub(super) most_tokens: u64,
    pub(super) prices: Arc<Prices>,
}

impl LlmOptions {
    /// Where OpenAI's own models are.
    pub const OPENAI: &'static str = "https://api.openai.com/v1";

    /// A model by its provider's name for it, at OpenAI, without a key.
    pub fn new(model: impl Into<String>) -> Self {
        Self {
            base_url: Address(Self::OPENAI.to_owned()),
            key: None,
            model: model.into(),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(600),
            largest_answer: 128 << 20,
            most_inputs: 2_048,
            most_tokens: 300_000,
            prices: Arc::new(Prices::known()),
        }
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The address of a provider, up to what comes before `/chat/completions`. Default: [`Self::OPENAI`].
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = Address(url.into());
        self
    }

    /// The key of an account. Default: none, as servers of one's own want it.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(Key(key.into().trim().to_owned())).filter(|Key(key)| !key.is_empty());
        self
    }

    /// Takes the key from a variable of the environment, such as `OPENAI_API_KEY`.
    ///
    /// # Errors
    /// [`LlmError::NoKey`] if the variable is not set, or empty, or no text.
    pub fn key_from_env(self, variable: &str) -> Result<Self, LlmError> {
        let no_key = |reason| LlmError::NoKey { variable: variable.to_owned(), reason };
        match env::var(variable) {
            Ok(key) if key.trim().is_empty() => Err(no_key("is empty")),
            Ok(key) => Ok(self.key(key)),
            Err(VarError::NotPresent) => Err(no_key("is not set")),
            Err(VarError::NotUnicode(_)) => Err(no_key("is no text")),
        }
    }

    /// How long connecting may take. Default: 10 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// For how long nothing may come of an answer. How long a call may take as a whole is its policy's. Default: 10
    /// minutes.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = timeout;
        self
    }

    /// The most bytes an answer may have. Default: 128 MiB.
    pub fn largest_answer(mut self, bytes: usize) -> Self {
        self.largest_answer = bytes;
        self
    }

    /// The most texts, and the most tokens, that one request for embeddings may have: at least 1 of each. More are
    /// asked for in several. Default: 2,048 texts and 300,000 tokens, which are OpenAI's; some providers allow 10
    /// texts.
    pub fn embed_at_most(mut self, texts: usize, tokens: u64) -> Self {
        (self.most_inputs, self.most_tokens) = (texts.max(1), tokens.max(1));
        self
    }

    /// What models cost. Default: [`Prices::known`]. Say [`Prices::none`] for a model that costs nothing: one whose
    /// price is not known is warned of.
    pub fn prices(mut self, prices: Prices) -> Self {
        self.prices = Arc::new(prices);
        self
    }

    /// A text without the key.
    pub(super) fn without_key(&self, text: &str) -> String {
        match &self.key {
            Some(Key(key)) => text.replace(key, "(key)"),
            None => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_never_shown() {
        let options = LlmOptions::new("m").key(" sk-very-secret\n");
        assert!(!format!("{options:?} {options:#?}").contains("secret"));
        assert_eq!(options.without_key("bad key sk-very-secret."), "bad key (key).");
        assert!(LlmOptions::new("m").key("").key.is_none());
        let error = LlmOptions::new("m").key_from_env("SAGE_LLM_NO_SUCH_VARIABLE").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the variable `SAGE_LLM_NO_SUCH_VARIABLE`, which should have the key, is not set"
        );
    }
}
