//! What is wrong with a folder is said by the names of its files.

use std::error::Error;
use std::fs;
use std::path::Path;

use safetensors::Dtype;
use sage_services::{Embedder, ModelError, StaticEmbedder};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::files::{Tensor, case, write_case, write_tensors};

/// An error with its causes.
pub(super) fn told(error: &dyn Error) -> String {
    let cause = error.source().map(|source| format!(": {}", told(source)));
    error.to_string() + &cause.unwrap_or_default()
}

fn refused(folder: &Path) -> String {
    told(&StaticEmbedder::open(folder).unwrap_err())
}

#[track_caller]
pub(super) fn assert_says(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "{told:?} does not say {part:?}");
    }
}

fn normalised() -> TempDir {
    write_case(&case("normalised"))
}

#[test]
fn a_file_that_is_missing_is_named() {
    let empty = TempDir::new().unwrap();
    assert_says(&refused(empty.path()), &["has no model.safetensors", "tokenizer.json", "model2vec", "wordllama"]);
    assert_says(&refused(&empty.path().join("nowhere")), &["nowhere cannot be read", "No such file"]);
    for file in ["model.safetensors", "tokenizer.json", "config.json"] {
        let folder = normalised();
        fs::remove_file(folder.path().join(file)).unwrap();
        assert_says(&refused(folder.path()), &[folder.path().to_str().unwrap(), &format!("has no {file}")]);
    }
    let folder = write_case(&case("wordllama"));
    fs::copy(folder.path().join("weights/tiny_6.safetensors"), folder.path().join("more.safetensors")).unwrap();
    assert_says(&refused(folder.path()), &["more.safetensors", "tiny_6.safetensors", "only one"]);
}

#[test]
fn weights_that_are_cut_are_refused_at_each_length() {
    let folder = normalised();
    let path = folder.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert_says(&refused(folder.path()), &["model.safetensors is not as it should be", "no safetensors file"]);
    }
    fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    refused(folder.path());
    fs::write(&path, &whole).unwrap();
    StaticEmbedder::open(folder.path()).unwrap();
}

#[test]
fn json_that_is_cut_is_refused() {
    for file in ["tokenizer.json", "config.json"] {
        let folder = normalised();
        let path = folder.path().join(file);
        let whole = fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(7) {
            fs::write(&path, &whole[..length]).unwrap();
            assert_says(&refused(folder.path()), &[&format!("{file} is not as it should be")]);
        }
        fs::write(&path, "[]").unwrap();
        assert_says(&refused(folder.path()), &[file]);
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let words = 15;
    let embeddings = |rows: usize| Tensor::f32("embeddings", &[rows, 6], &vec![0.5; rows * 6]);
    let weights = |len: usize| Tensor::f32("weights", &[len], &vec![1.0; len]);
    let typed =
        |dtype, bytes| Tensor { name: "embeddings".to_owned(), dtype, shape: vec![words, 6], bytes: vec![0; bytes] };
    let mut not_finite = vec![0.5; words * 6];
    not_finite[7] = f32::NAN;
    let mut infinite = vec![0.5; words * 6];
    infinite[89] = f32::INFINITY;
    for (tensors, says) in [
        (vec![Tensor::f32("other", &[1, 1], &[1.0])], &["`embedding.weight` is missing"][..]),
        (vec![typed(Dtype::I8, 90)], &["`embeddings`", "is of I8", "F32"]),
        (vec![typed(Dtype::I64, 720)], &["`embeddings`", "is of I64"]),
        (vec![Tensor::f32("embeddings", &[90], &[0.5; 90])], &["the shape [90]", "[rows, columns]"]),
        (vec![Tensor::f32("embeddings", &[3, 5, 6], &[0.5; 90])], &["the shape [3, 5, 6]"]),
        (vec![Tensor::f32("embeddings", &[0, 6], &[])], &["the shape [0, 6]"]),
        (vec![Tensor::f32("embeddings", &[15, 0], &[])], &["the shape [15, 0]"]),
        (vec![embeddings(14)], &["`embeddings`", "14 rows for 15 tokens"]),
        (vec![Tensor::f32("embeddings", &[words, 6], &not_finite)], &["`embeddings` has NaN at position 7"]),
        (vec![Tensor::f32("embeddings", &[words, 6], &infinite)], &["`embeddings` has inf at position 89"]),
        (vec![embeddings(15), weights(14)], &["`weights` has the shape [14] and not [15]"]),
        (vec![embeddings(2), Tensor::i64("mapping", &[1; 14])], &["`mapping`", "14 rows for 15 tokens"]),
        (vec![embeddings(2), Tensor::i64("mapping", &[2; 15])], &["`mapping` has 2, of 2 rows"]),
        (vec![embeddings(2), Tensor::i64("mapping", &[-1; 15])], &["`mapping` has -1, of 2 rows"]),
        (vec![embeddings(2), Tensor::f32("mapping", &[15], &[1.0; 15])], &["`mapping` is of F32"]),
    ] {
        let folder = normalised();
        write_tensors(&folder.path().join("model.safetensors"), &tensors);
        assert_says(&refused(folder.path()), says);
        assert_says(&refused(folder.path()), &["model.safetensors"]);
    }
}

#[test]
fn settings_that_are_none_are_named() {
    let with = |change: fn(&mut Value)| {
        let mut case = case("normalised");
        change(&mut case);
        refused(write_case(&case).path())
    };
    assert_says(&with(|case| case["config"]["normalize"] = json!("yes")), &["config.json", "`normalize` is \"yes\""]);
    assert_says(&with(|case| case["config"]["max_length"] = json!(-1)), &["config.json", "`max_length` is -1"]);
    let without_unknown = |case: &mut Value| {
        case["tokenizer"]["model"]["unk_token"] = json!("[NONE]");
    };
    assert_says(&with(without_unknown), &["tokenizer.json", "`[NONE]`", "vocabulary"]);
}

#[test]
fn a_tokenizer_without_an_unknown_token_leaves_out_what_it_does_not_know() {
    let mut case = case("wordllama");
    case["tokenizer"]["model"]["unk_token"] = Value::Null;
    case["tokenizer"]["model"]["byte_fallback"] = json!(false);
    let embedder = StaticEmbedder::open(write_case(&case).path()).unwrap();
    let vectors = embedder.embed_passages(&["tea", "tea 価格", "価格"]).unwrap();
    assert_ne!(vectors[0], [0.0; 6]);
    assert!(vectors.iter().flatten().all(|x| x.is_finite()));
}

#[test]
fn a_text_of_which_nothing_is_known_gets_zeros_and_a_long_one_its_vector() {
    let embedder = StaticEmbedder::open(normalised().path()).unwrap();
    let long = format!("tea is hot {}", format!("{}\u{2028} ", "y".repeat(250)).repeat(4_000));
    let unbroken = "tea".repeat(350_000);
    let vectors = embedder.embed_passages(&["", " \u{0} ", "xylophone", &unbroken, &long]).unwrap();
    for vector in &vectors[..4] {
        assert_eq!(vector, &[0.0; 6]);
    }
    assert!((vectors[4].iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    assert!(embedder.embed_passages(&[]).unwrap().is_empty());
    let embedder = StaticEmbedder::open(write_case(&case("wordllama")).path()).unwrap();
    for text in ["tea is hot. ".repeat(80_000), unbroken] {
        let vector = embedder.embed_passages(&[&text]).unwrap().remove(0);
        assert!((vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    }
}

#[test]
fn a_folder_in_place_of_a_file_is_an_error() {
    let folder = normalised();
    let path = folder.path().join("model.safetensors");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = StaticEmbedder::open(folder.path()).unwrap_err();
    assert!(matches!(error, ModelError::Unreadable { .. }), "{error}");
}
