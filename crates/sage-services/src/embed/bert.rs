//! [`Bert`]: transformers of the kinds of BERT and XLM-RoBERTa, run on the processor.
//!
//! Texts of several lengths are worked on together without padding: their tokens lie one after the other, and only
//! attention is done for each text alone. So a text's numbers do not depend on the texts beside it.
//!
//! Invariant: all sizes fit, and every number is finite. Both are checked when the model is opened.

use serde::Deserialize;

use super::model::{ModelError, ModelFile};
use super::parallel::in_parallel;
use super::product::{Part, gelu, product, softmax, sum};
use super::tensors::{Matrix, Tensors};

/// How many tokens a thread works on at once, if there are enough of them. More do not make it faster, but take memory.
const PART_TOKENS: usize = 1_024;

/// What `config.json` says.
#[derive(Debug, Deserialize)]
pub(crate) struct BertConfig {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    #[serde(default = "gelu_name")]
    hidden_act: String,
    #[serde(default = "usual_epsilon")]
    layer_norm_eps: f32,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    pad_token_id: Option<usize>,
}

fn gelu_name() -> String {
    "gelu".to_owned()
}

fn usual_epsilon() -> f32 {
    1e-12
}

impl BertConfig {
    pub(crate) fn of(file: &ModelFile) -> Result<Self, ModelError> {
        let config: Self =
            serde_json::from_slice(&file.bytes).map_err(|error| ModelError::malformed(&file.path, error))?;
        let refused = |what: &str, value: &str, can: &str| {
            Err(ModelError::malformed(&file.path, format!("`{what}` is {value}; {can} can be read")))
        };
        if !config.is_roberta() && config.model_type != "bert" {
            return refused("model_type", &config.model_type, "bert, roberta and xlm-roberta");
        }
        if config.hidden_act != "gelu" {
            return refused("hidden_act", &config.hidden_act, "gelu");
        }
        if let Some(kind) = config.position_embedding_type.as_deref().filter(|&kind| kind != "absolute") {
            return refused("position_embedding_type", kind, "absolute");
        }
        if config.layer_norm_eps <= 0.0 {
            return refused("layer_norm_eps", &config.layer_norm_eps.to_string(), "what is above 0");
        }
        if config.hidden_size == 0 || !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let heads = config.num_attention_heads;
            let reason = format!("`hidden_size` is {}, and not a multiple of the {heads} heads", config.hidden_size);
            return Err(ModelError::malformed(&file.path, reason));
        }
        Ok(config)
    }

    pub(crate) fn is_roberta(&self) -> bool {
        matches!(&*self.model_type, "roberta" | "xlm-roberta")
    }

    /// What of it decides the numbers, apart from the weights.
    pub(crate) fn settings(&self) -> String {
        format!("{self:?}")
    }
}

/// The tokens of a text, with those that the model wants around it.
pub(crate) struct Sequence {
    pub(crate) ids: Vec<u32>,
    /// 1 for the second text of a pair.
    pub(crate) kinds: Vec<u32>,
}

/// A transformer.
pub(crate) struct Bert {
    hidden: usize,
    heads: usize,
    words: Matrix,
    positions: Matrix,
    /// Which of the positions is that of a text's first token.
    first_position: usize,
    kinds: Matrix,
    norm: Norm,
    layers: Vec<Layer>,
}

struct Layer {
    /// Queries, keys and values.
    attention: Linear,
    attended: Linear,
    attended_norm: Norm,
    wide: Linear,
    narrow: Linear,
    norm: Norm,
}

/// `x × weights + bias`.
pub(crate) struct Linear {
    inputs: usize,
    outputs: usize,
    /// A row for each input.
    weights: Vec<f32>,
    bias: Vec<f32>,
}

/// Brings rows to a common mean and variance.
struct Norm {
    weights: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

impl Bert {
    /// Reads a transformer whose tensors' names begin with `prefix`.
    pub(crate) fn of(config: &BertConfig, tensors: &Tensors<'_>, prefix: &str) -> Result<Self, ModelError> {
        let hidden = config.hidden_size;
        let table = |name: &str| -> Result<Matrix, ModelError> {
            let name = format!("{prefix}embeddings.{name}.weight");
            let table = tensors.matrix(&name)?;
            tensors.matrix_of(&name, table.rows, hidden)
        };
        let norm = |name: &str| Norm::of(tensors, &format!("{prefix}{name}.LayerNorm"), config);
        let linear = |name: &str, inputs, outputs| Linear::of(tensors, &format!("{prefix}{name}"), inputs, outputs);
        let wide = config.intermediate_size;
        let layer = |number: usize| -> Result<Layer, ModelError> {
            let layer = format!("encoder.layer.{number}");
            let of_head = |name| linear(&format!("{layer}.attention.self.{name}"), hidden, hidden);
            Ok(Layer {
                attention: Linear::beside_each_other(&[of_head("query")?, of_head("key")?, of_head("value")?]),
                attended: linear(&format!("{layer}.attention.output.dense"), hidden, hidden)?,
                attended_norm: norm(&format!("{layer}.attention.output"))?,
                wide: linear(&format!("{layer}.intermediate.dense"), hidden, wide)?,
                narrow: linear(&format!("{layer}.output.dense"), wide, hidden)?,
                norm: norm(&format!("{layer}.output"))?,
            })
        };
        Ok(Self {
            hidden,
            heads: config.num_attention_heads,
            words: table("word_embeddings")?,
            positions: table("position_embeddings")?,
            first_position: if config.is_roberta() { config.pad_token_id.unwrap_or(1).saturating_add(1) } else { 0 },
            kinds: table("token_type_embeddings")?,
            norm: norm("embeddings")?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_, _>>()?,
        })
    }

    /// Numbers for each token.
    pub(crate) fn hidden(&self) -> usize {
        self.hidden
    }

    /// How many tokens it knows.
    pub(crate) fn vocabulary(&self) -> usize {
        self.words.rows
    }

    /// The most tokens that a text may have.
    pub(crate) fn longest(&self) -> usize {
        self.positions.rows.saturating_sub(self.first_position)
    }

    /// Works on all texts, on up to so many threads: `result` gets the numbers of each token of a text, one row after
    /// the other. Ids are below [`Self::vocabulary`], and no text is empty, or longer than [`Self::longest`].
    pub(crate) fn run<R: Send>(
        &self,
        texts: &[Sequence],
        threads: usize,
        result: impl Fn(&[f32]) -> R + Sync,
    ) -> Vec<R> {
        let tokens: usize = texts.iter().map(|text| text.ids.len()).sum();
        let most = tokens.div_ceil(threads).min(PART_TOKENS);
        let mut parts = Vec::new();
        let (mut begin, mut len) = (0, 0);
        for (position, text) in texts.iter().enumerate() {
            if position > begin && len + text.ids.len() > most {
                parts.push(&texts[begin..position]);
                (begin, len) = (position, 0);
            }
            len += text.ids.len();
        }
        parts.push(&texts[begin..]);
        let results = in_parallel(&parts, threads, |part| {
            let rows = self.rows(part);
            let mut rest = &rows[..];
            let mut own = |text: &Sequence| {
                let (own, others) = rest.split_at(text.ids.len() * self.hidden);
                rest = others;
                result(own)
            };
            part.iter().map(&mut own).collect::<Vec<R>>()
        });
        results.into_iter().flatten().collect()
    }

    /// The numbers of each token, text after text.
    fn rows(&self, texts: &[Sequence]) -> Vec<f32> {
        let mut rows = self.embedded(texts);
        let mut attended = vec![0.0; rows.len()];
        for layer in &self.layers {
            let heads = layer.attention.apply(&rows);
            self.attend(&heads, texts, &mut attended);
            add(&mut rows, &layer.attended.apply(&attended));
            layer.attended_norm.apply(&mut rows);
            let mut wide = layer.wide.apply(&rows);
            gelu(&mut wide);
            add(&mut rows, &layer.narrow.apply(&wide));
            layer.norm.apply(&mut rows);
        }
        rows
    }

    fn embedded(&self, texts: &[Sequence]) -> Vec<f32> {
        let mut rows = Vec::with_capacity(texts.iter().map(|text| text.ids.len()).sum::<usize>() * self.hidden);
        for text in texts {
            for (position, (&id, &kind)) in text.ids.iter().zip(&text.kinds).enumerate() {
                let begin = rows.len();
                rows.extend_from_slice(self.words.row(id as usize));
                let row = &mut rows[begin..];
                add(row, self.positions.row(self.first_position + position));
                add(row, self.kinds.row((kind as usize).min(self.kinds.rows - 1)));
            }
        }
        self.norm.apply(&mut rows);
        rows
    }

    /// Attention of each text's tokens to one another. A row of `heads` has queries, keys and values.
    fn attend(&self, heads: &[f32], texts: &[Sequence], attended: &mut [f32]) {
        let (hidden, width) = (self.hidden, self.hidden / self.heads);
        let scale = 1.0 / (width as f32).sqrt();
        let mut scores = Vec::new();
        let mut first = 0;
        for text in texts {
            let len = text.ids.len();
            scores.resize(len * len, 0.0);
            for head in 0..self.heads {
                let begin = first * 3 * hidden + head * width;
                let [queries, keys, values] =
                    [0, 1, 2].map(|part| Part::rows(&heads[begin + part * hidden..], 3 * hidden));
                product([len, width, len], scale, queries, keys.transposed(), 0.0, &mut scores, len);
                scores.chunks_exact_mut(len).for_each(softmax);
                let onto = &mut attended[first * hidden + head * width..];
                product([len, len, width], 1.0, Part::rows(&scores, len), values, 0.0, onto, hidden);
            }
            first += len;
        }
    }
}

impl Linear {
    pub(crate) fn of(tensors: &Tensors<'_>, name: &str, inputs: usize, outputs: usize) -> Result<Self, ModelError> {
        let matrix = tensors.matrix_of(&format!("{name}.weight"), outputs, inputs)?;
        let bias = tensors.vector(&format!("{name}.bias"), outputs)?;
        let mut weights = vec![0.0; matrix.values.len()];
        for (output, row) in matrix.values.chunks_exact(inputs).enumerate() {
            row.iter().enumerate().for_each(|(input, &weight)| weights[input * outputs + output] = weight);
        }
        Ok(Self { inputs, outputs, weights, bias })
    }

    /// One whose outputs are those of all.
    fn beside_each_other(all: &[Self]) -> Self {
        let inputs = all[0].inputs;
        let row =
            |input| move |linear: &Self| linear.weights[input * linear.outputs..(input + 1) * linear.outputs].to_vec();
        Self {
            inputs,
            outputs: all.iter().map(|linear| linear.outputs).sum(),
            weights: (0..inputs).flat_map(|input| all.iter().flat_map(row(input)).collect::<Vec<_>>()).collect(),
            bias: all.iter().flat_map(|linear| linear.bias.iter().copied()).collect(),
        }
    }

    pub(crate) fn apply(&self, rows: &[f32]) -> Vec<f32> {
        let len = rows.len() / self.inputs;
        let mut onto = self.bias.repeat(len);
        let sizes = [len, self.inputs, self.outputs];
        let weights = Part::rows(&self.weights, self.outputs);
        product(sizes, 1.0, Part::rows(rows, self.inputs), weights, 1.0, &mut onto, self.outputs);
        onto
    }
}

impl Norm {
    fn of(tensors: &Tensors<'_>, name: &str, config: &BertConfig) -> Result<Self, ModelError> {
        let vector = |part: &str| tensors.vector(&format!("{name}.{part}"), config.hidden_size);
        Ok(Self { weights: vector("weight")?, bias: vector("bias")?, epsilon: config.layer_norm_eps })
    }

    fn apply(&self, rows: &mut [f32]) {
        let len = self.weights.len();
        for row in rows.chunks_exact_mut(len) {
            let mean = sum(row, |x| x) / len as f32;
            let variance = sum(row, |x| (x - mean) * (x - mean)) / len as f32;
            let factor = 1.0 / (variance + self.epsilon).sqrt();
            for ((x, weight), bias) in row.iter_mut().zip(&self.weights).zip(&self.bias) {
                *x = (*x - mean) * factor * weight + bias;
            }
        }
    }
}

fn add(onto: &mut [f32], other: &[f32]) {
    onto.iter_mut().zip(other).for_each(|(x, y)| *x += y);
}
