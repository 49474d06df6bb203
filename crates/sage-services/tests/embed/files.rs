//! Models of a few numbers, written into folders; and fixtures.

use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;
use tempfile::TempDir;

/// A tensor to be written.
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Tensor {
    pub(crate) fn f32(name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name: name.to_owned(), dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    /// The values must be exact in 16 bits.
    pub(crate) fn f16(name: &str, shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect();
        Self { name: name.to_owned(), dtype: Dtype::F16, shape: shape.to_vec(), bytes }
    }

    pub(crate) fn i64(name: &str, values: &[i64]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name: name.to_owned(), dtype: Dtype::I64, shape: vec![values.len()], bytes }
    }
}

pub(crate) fn write_tensors(path: &Path, tensors: &[Tensor]) {
    let views = tensors.iter().map(|tensor| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap();
        (&*tensor.name, view)
    });
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()).unwrap();
}

pub(crate) fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/embed/fixtures").join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub(crate) fn texts(fixture: &Value) -> Vec<&str> {
    fixture["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

pub(crate) fn rows(value: &Value) -> Vec<Vec<f32>> {
    value.as_array().unwrap().iter().map(floats).collect()
}

pub(crate) fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

/// One of the cases of `static.json`.
pub(crate) fn case(name: &str) -> Value {
    case_of("static.json", name)
}

pub(crate) fn case_of(file: &str, name: &str) -> Value {
    let all = fixture(file);
    all["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap().clone()
}

/// Writes a case into a folder, as its layout has it.
pub(crate) fn write_case(case: &Value) -> TempDir {
    let folder = TempDir::new().unwrap();
    let matrix = rows(&case["matrix"]);
    let (shape, values) = ([matrix.len(), matrix[0].len()], matrix.concat());
    let tokenizer = case["tokenizer"].to_string();
    if case["layout"] == "wordllama" {
        let tensor = Tensor::f16("embedding.weight", &shape, &values);
        write_tensors(&folder.path().join("weights/tiny_6.safetensors"), &[tensor]);
        fs::create_dir(folder.path().join("tokenizers")).unwrap();
        fs::write(folder.path().join("tokenizers/tiny_tokenizer_config.json"), tokenizer).unwrap();
        return folder;
    }
    let mut tensors = vec![Tensor::f32("embeddings", &shape, &values)];
    if let Some(mapping) = case.get("mapping") {
        let mapping: Vec<i64> = mapping.as_array().unwrap().iter().map(|row| row.as_i64().unwrap()).collect();
        let weights = floats(&case["weights"]);
        tensors.extend([Tensor::i64("mapping", &mapping), Tensor::f32("weights", &[weights.len()], &weights)]);
    }
    write_tensors(&folder.path().join("model.safetensors"), &tensors);
    fs::write(folder.path().join("tokenizer.json"), tokenizer).unwrap();
    fs::write(folder.path().join("config.json"), case["config"].to_string()).unwrap();
    folder
}

/// Writes a case of `bert.json` into a folder.
#[cfg(feature = "minilm")]
pub(crate) fn write_bert(case: &Value) -> TempDir {
    let folder = TempDir::new().unwrap();
    let shape =
        |tensor: &Value| tensor["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
    let tensor = |tensor: &Value| {
        let shape: Vec<usize> = shape(tensor);
        Tensor::f16(tensor["name"].as_str().unwrap(), &shape, &floats(&tensor["values"]))
    };
    let tensors: Vec<_> = case["tensors"].as_array().unwrap().iter().map(tensor).collect();
    write_tensors(&folder.path().join("model.safetensors"), &tensors);
    fs::write(folder.path().join("tokenizer.json"), case["tokenizer"].to_string()).unwrap();
    fs::write(folder.path().join("config.json"), case["config"].to_string()).unwrap();
    if let Some(most) = case.get("max_seq_length") {
        let settings = serde_json::json!({"max_seq_length": most});
        fs::write(folder.path().join("sentence_bert_config.json"), settings.to_string()).unwrap();
    }
    if case["pooling"] == "cls" {
        fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        let pooling = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;
        fs::write(folder.path().join("1_Pooling/config.json"), pooling).unwrap();
    }
    folder
}

/// Compares vectors with those of a reference.
pub(crate) fn assert_close(texts: &[&str], found: &[Vec<f32>], expected: &[Vec<f32>], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for ((text, found), expected) in texts.iter().zip(found).zip(expected) {
        assert_eq!(found.len(), expected.len());
        let furthest = found.iter().zip(expected).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        assert!(furthest <= tolerance, "{text:.60?} is {furthest} off: {found:.3?} and not {expected:.3?}");
    }
}
