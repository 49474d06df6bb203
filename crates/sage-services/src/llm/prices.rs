//! [`Prices`]: what models cost. The table is `prices.json`, which has figures of litellm's table of models (MIT): of
//! its release 1.110.2, as of November 2026.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::tokens::TokenUsage;

/// What models cost, by their names.
///
/// ```
/// use sage_services::llm::{Prices, TokenUsage};
///
/// let price = Prices::known().of("gpt-4o-mini-2024-07-18").unwrap();
/// let dollars = price.spent(&TokenUsage::new(1_000_000, 0));
/// assert!((0.1..0.2).contains(&dollars));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prices(HashMap<String, Price>);

/// What a model costs: dollars for a token, in the tables of this module.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Price {
    /// For a token of a request.
    pub input: f64,
    /// For one that the provider has in its cache.
    pub cached_input: f64,
    /// For a token of an answer.
    pub output: f64,
}

/// Why a table of prices cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PricesError {
    /// The file cannot be read.
    #[error("the prices in `{}` cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// It is no JSON.
    #[error("the prices are no JSON")]
    Json(#[from] serde_json::Error),
    /// It is no table.
    #[error("the prices are no table of models, each with its `input_cost_per_token`")]
    NoTable,
    /// A price is none.
    #[error("`{field}` of the model `{model}` is {value}, not a number of 0 or more")]
    NoPrice {
        /// The model's name.
        model: String,
        /// What has the price.
        field: &'static str,
        /// What it has instead, as JSON.
        value: String,
    },
    /// What a file has is wrong.
    #[error("the prices in `{}` are wrong", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<PricesError>,
    },
}

impl Prices {
    /// When the prices of [`known`](Self::known) were right, to the month. They change: read a file of today's where
    /// they matter.
    pub const AS_OF: &'static str = "2026-11";

    /// The prices of about 50 models, as of [`AS_OF`](Self::AS_OF), in dollars.
    pub fn known() -> Self {
        Self::parsed(include_str!("prices.json")).expect("the table is right: a test reads it")
    }

    /// Prices of nothing: then nothing is counted as spent.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads a file in litellm's format: an object that has the models by their names, each with
    /// `input_cost_per_token`, and perhaps `output_cost_per_token` and `cache_read_input_token_cost`. What else is in
    /// it is passed over, and so are models without the first of them.
    ///
    /// # Errors
    /// The file cannot be read, has a price that is none, or has no model with a price.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, PricesError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| PricesError::Io { path: path.to_owned(), source })?;
        Self::parsed(&text).map_err(|error| PricesError::File { path: path.to_owned(), source: error.into() })
    }

    /// As [`read`](Self::read), of a text.
    ///
    /// # Errors
    /// As there.
    pub fn parsed(text: &str) -> Result<Self, PricesError> {
        let table: Value = serde_json::from_str(text)?;
        let models = table.as_object().ok_or(PricesError::NoTable)?;
        let priced = models.iter().filter(|(name, _)| *name != "sample_spec");
        let prices = priced.filter_map(|(name, model)| Price::of(name, model).transpose());
        let prices: HashMap<_, _> = prices.collect::<Result<_, _>>()?;
        if prices.is_empty() { Err(PricesError::NoTable) } else { Ok(Self(prices.clone()).with_short_names(&prices)) }
    }

    /// Sets the price of a model.
    pub fn set(mut self, model: impl Into<String>, price: Price) -> Self {
        self.0.insert(model.into(), price);
        self
    }

    /// The price of a model by its full name, or that without its provider (`openai/`) or date (`-2024-07-18`); `None`
    /// if it is not known.
    pub fn of(&self, model: &str) -> Option<Price> {
        let known = |name: &str| self.0.get(name).or_else(|| self.0.get(undated(name)?)).copied();
        known(model).or_else(|| known(model.split_once('/')?.1))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A table names some models with their provider, which does not do so itself.
    fn with_short_names(mut self, prices: &HashMap<String, Price>) -> Self {
        let mut named: Vec<_> = prices.iter().collect();
        // The same, in whatever order the table was read.
        named.sort_unstable_by_key(|(name, _)| *name);
        for (name, price) in named {
            if let Some((_, short)) = name.split_once('/') {
                self.0.entry(short.to_owned()).or_insert(*price);
            }
        }
        self
    }
}

impl Price {
    /// A price in dollars, or another unit, for a million tokens each.
    pub fn per_million(input: f64, output: f64) -> Self {
        Self { input: input / 1e6, cached_input: input / 1e6, output: output / 1e6 }
    }

    /// The price of a model by this name, if the table has one.
    fn of(name: &str, model: &Value) -> Result<Option<(String, Self)>, PricesError> {
        let cost = |field: &'static str| {
            let Some(value) = model.get(field).filter(|value| !value.is_null()) else { return Ok(None) };
            // Some tables have numbers as text.
            let cost = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
            let no_price = || PricesError::NoPrice { model: name.to_owned(), field, value: value.to_string() };
            cost.filter(|cost| *cost >= 0.0 && cost.is_finite()).ok_or_else(no_price).map(Some)
        };
        let Some(input) = cost("input_cost_per_token")? else { return Ok(None) };
        let output = cost("output_cost_per_token")?.unwrap_or(0.0);
        let cached_input = cost("cache_read_input_token_cost")?.unwrap_or(input);
        Ok(Some((name.to_owned(), Self { input, cached_input, output })))
    }

    /// What so many tokens cost.
    pub fn spent(&self, usage: &TokenUsage) -> f64 {
        let uncached = usage.input.saturating_sub(usage.cached_input);
        uncached as f64 * self.input + usage.cached_input as f64 * self.cached_input + usage.output as f64 * self.output
    }
}

/// A model's name without the date of its release: `-2024-07-18`, `-20240718`.
fn undated(name: &str) -> Option<&str> {
    let begin = name.len() - name.bytes().rev().take_while(|byte| byte.is_ascii_digit() || *byte == b'-').count();
    let digits = name[begin..].bytes().filter(u8::is_ascii_digit).count();
    (name[begin..].starts_with('-') && digits == 8).then(|| &name[..begin])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_about_fifty_models() {
        let table: Value = serde_json::from_str(include_str!("prices.json")).unwrap();
        assert!((45..=60).contains(&table.as_object().unwrap().len()));
        let known = Prices::known();
        for name in ["gpt-4o-mini", "openai/gpt-4o-mini", "gpt-4o-mini-2024-07-18", "mistral-large-latest"] {
            assert!(known.of(name).is_some(), "{name}");
        }
        assert_eq!(known.of("gpt-4o-mini").unwrap().input, 1.5e-7);
        for name in ["", "gpt", "/", "-2024-07-18", "gpt-4o-mini-2024", "smollm2"] {
            assert!(known.of(name).is_none(), "{name}");
        }
    }

    #[test]
    fn cached_tokens_cost_less() {
        let price = Prices::parsed(
            r#"{"sample_spec": {"input_cost_per_token": 0.0}, "other": {"mode": "image"},
                "m": {"input_cost_per_token": 2, "output_cost_per_token": "3", "cache_read_input_token_cost": 1}}"#,
        );
        let price = price.unwrap().of("m").unwrap();
        assert_eq!(price.spent(&TokenUsage { input: 10, cached_input: 4, output: 1 }), 12.0 + 4.0 + 3.0);
        for (wrong, shown) in [("\"much\"", "\"much\""), ("-1", "-1"), ("[]", "[]"), ("\"inf\"", "\"inf\"")] {
            let table = format!(r#"{{"m": {{"input_cost_per_token": 1, "output_cost_per_token": {wrong}}}}}"#);
            let told = Prices::parsed(&table).unwrap_err().to_string();
            let end = format!("is {shown}, not a number of 0 or more");
            assert_eq!(told, format!("`output_cost_per_token` of the model `m` {end}"));
        }
        assert!(matches!(Prices::parsed("{}"), Err(PricesError::NoTable)));
        assert!(matches!(Prices::parsed("[1"), Err(PricesError::Json(_))));
        assert!(matches!(Prices::read("/no/such/file"), Err(PricesError::Io { .. })));
    }
}
