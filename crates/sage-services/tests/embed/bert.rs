//! Transformers: their vectors and scores are those of the reference, and what is wrong with their files is named.

use std::fs;
use std::thread;

use sage_services::store::Hit;
use sage_services::{CrossEncoder, Embedder, MiniLmEmbedder};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::damaged::{assert_says, told};
use super::files::{assert_close, case_of, fixture, rows, texts, write_bert};

fn case(name: &str) -> Value {
    case_of("bert.json", name)
}

#[test]
fn vectors_of_transformers_are_those_of_the_reference() {
    let all = fixture("bert.json");
    let texts = texts(&all);
    for name in ["mean", "first", "other kind"] {
        let case = case(name);
        let embedder = MiniLmEmbedder::open(write_bert(&case).path()).unwrap();
        assert_close(&texts, &embedder.embed_passages(&texts).unwrap(), &rows(&case["results"]), 1e-6);
        assert_eq!((embedder.id().name(), embedder.id().dimensions()), ("minilm", 12));
    }
    let ids = ["mean", "first"].map(|name| {
        let mut case = case(name);
        case["tensors"] = self::case("mean")["tensors"].clone();
        MiniLmEmbedder::open(write_bert(&case).path()).unwrap().id().clone()
    });
    ids[0].check(&ids[1]).unwrap_err();
}

#[test]
fn scores_of_cross_encoders_are_those_of_the_reference() {
    let all = fixture("bert.json");
    let texts = texts(&all);
    for name in ["scores", "scores of the other kind"] {
        let case = case(name);
        let encoder = CrossEncoder::open(write_bert(&case).path()).unwrap();
        let question = case["question"].as_str().unwrap();
        let expected = rows(&case["results"]);
        let scores: Vec<_> = encoder.scores(question, &texts).unwrap().into_iter().map(|score| vec![score]).collect();
        assert_close(&texts, &scores, &expected, 1e-6);

        let hits = texts.iter().enumerate().map(|(number, text)| Hit::new(number.to_string(), -1.0, *text));
        let best = encoder.rerank(question, hits.collect(), 3).unwrap();
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by(|&a, &b| expected[b][0].total_cmp(&expected[a][0]));
        let ids: Vec<_> = best.iter().map(|hit| hit.id.parse::<usize>().unwrap()).collect();
        assert_eq!(ids, order[..3]);
        assert!(best.iter().zip(&order).all(|(hit, &text)| (hit.score - expected[text][0]).abs() < 1e-6));
        assert!(encoder.rerank(question, vec![], 3).unwrap().is_empty());
        let equal = ["b", "a", "c"].map(|id| Hit::new(id, 0.0, "tea is hot")).to_vec();
        let ids: String = encoder.rerank(question, equal, 9).unwrap().into_iter().map(|hit| hit.id).collect();
        assert_eq!(ids, "bac");
    }
}

#[test]
fn the_vector_of_a_text_does_not_depend_on_its_batch_or_its_thread() {
    let folder = write_bert(&case("mean"));
    let words = ["tea", "is", "hot", "services", "stopped", "last", "."];
    let text =
        |number: usize| (0..number % 9).map(|word| words[(number + word * word) % 7]).collect::<Vec<_>>().join(" ");
    let texts: Vec<String> = (0..600).map(text).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let alone = MiniLmEmbedder::open(folder.path()).unwrap().with_threads(1);
    let expected: Vec<_> = texts.iter().flat_map(|text| alone.embed_queries(&[text]).unwrap()).collect();
    for threads in [1, 3] {
        let embedder = MiniLmEmbedder::open(folder.path()).unwrap().with_threads(threads);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(embedder.embed_passages(&texts).unwrap(), expected));
            }
        });
    }
    assert!(alone.embed_passages(&[]).unwrap().is_empty());
}

#[test]
fn a_text_of_a_megabyte_is_cut() {
    let embedder = MiniLmEmbedder::open(write_bert(&case("mean")).path()).unwrap();
    let unknown = format!("{} ", "y".repeat(250));
    let long = format!("tea is hot. {}", unknown.repeat(4_000));
    let vectors = embedder.embed_passages(&[&long, "tea is hot. yy yy"]).unwrap();
    assert_eq!(vectors[0], vectors[1]);
}

#[test]
fn files_of_a_transformer_that_are_missing_are_named_with_where_to_get_them() {
    let empty = TempDir::new().unwrap();
    let embedder = || told(&MiniLmEmbedder::open(empty.path()).unwrap_err());
    let encoder = || told(&CrossEncoder::open(empty.path()).unwrap_err());
    assert_says(&embedder(), &["has no config.json", "model.safetensors", "all-MiniLM-L6-v2"]);
    assert_says(&encoder(), &["has no config.json", "model.safetensors", "ms-marco-MiniLM", "bge-reranker-base"]);
    let folder = write_bert(&case("scores"));
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let path = folder.path().join(file);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_says(&told(&CrossEncoder::open(folder.path()).unwrap_err()), &[&format!("has no {file}")]);
        for length in (0..whole.len()).step_by(whole.len() / 50) {
            fs::write(&path, &whole[..length]).unwrap();
            assert_says(&told(&MiniLmEmbedder::open(folder.path()).unwrap_err()), &[file, "not as it should be"]);
            assert_says(&told(&CrossEncoder::open(folder.path()).unwrap_err()), &[file, "not as it should be"]);
        }
        fs::write(&path, whole).unwrap();
    }
    CrossEncoder::open(folder.path()).unwrap();
}

#[test]
fn settings_that_no_transformer_here_has_are_named() {
    let with = |change: fn(&mut Value)| {
        let mut case = case("mean");
        change(&mut case);
        told(&MiniLmEmbedder::open(write_bert(&case).path()).unwrap_err())
    };
    assert_says(&with(|case| case["config"]["model_type"] = json!("gpt2")), &["config.json", "`model_type` is gpt2"]);
    assert_says(&with(|case| case["config"]["hidden_act"] = json!("relu")), &["`hidden_act` is relu; gelu"]);
    assert_says(&with(|case| case["config"]["hidden_size"] = json!(13)), &["13", "multiple of the 3 heads"]);
    assert_says(&with(|case| case["config"]["hidden_size"] = json!(0)), &["`hidden_size` is 0"]);
    assert_says(&with(|case| case["config"]["num_attention_heads"] = json!(0)), &["0 heads"]);
    let without_size = |case: &mut Value| drop(case["config"].as_object_mut().unwrap().remove("hidden_size"));
    assert_says(&with(without_size), &["config.json", "missing field `hidden_size`"]);
    assert_says(&with(|case| case["config"]["position_embedding_type"] = json!("relative")), &["is relative"]);
    assert_says(&with(|case| case["config"]["layer_norm_eps"] = json!(0.0)), &["`layer_norm_eps` is 0"]);
    let far = |case: &mut Value| {
        case["config"]["model_type"] = json!("roberta");
        case["config"]["pad_token_id"] = json!(u64::MAX);
    };
    assert_says(&with(far), &["position_embeddings", "room for 0 tokens"]);
    assert_says(
        &with(|case| case["config"]["num_hidden_layers"] = json!(3)),
        &["model.safetensors", "`encoder.layer.2.attention.self.query.weight` is missing"],
    );
    assert_says(
        &with(|case| case["config"]["intermediate_size"] = json!(21)),
        &["`encoder.layer.0.intermediate.dense.weight` has the shape [20, 12] and not [21, 12]"],
    );
    assert_says(&with(|case| case["max_seq_length"] = json!(2)), &["sentence_bert_config.json", "`max_seq_length`"]);
    let more_words = |case: &mut Value| case["tokenizer"]["model"]["vocab"]["more"] = json!(15);
    assert_says(&with(more_words), &["word_embeddings", "15 rows for 16"]);
    let not_finite = |case: &mut Value| {
        let tensors = case["tensors"].as_array_mut().unwrap();
        // As a number of 16 bits, this is infinite.
        tensors[5]["values"][3] = json!(1e9);
    };
    assert_says(&with(not_finite), &["has inf at position 3"]);
    let scores = |name: &str| told(&CrossEncoder::open(write_bert(&case(name)).path()).unwrap_err());
    assert_says(&scores("mean"), &["`bert.pooler.dense.weight` is missing"]);
    let folder = write_bert(&case("first"));
    fs::write(folder.path().join("1_Pooling/config.json"), r#"{"pooling_mode_max_tokens": true}"#).unwrap();
    let refused = told(&MiniLmEmbedder::open(folder.path()).unwrap_err());
    assert_says(&refused, &["1_Pooling/config.json", "mean"]);
}
