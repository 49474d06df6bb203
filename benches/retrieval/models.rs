//! Embedders that benchmarks compare besides the lexical one.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use sage_services::Embedder;

type Failure = Box<dyn Error>;

/// Which models there are.
#[derive(Args)]
pub(crate) struct Models {
    /// Folder of a static embedder; needs the feature `static`
    #[arg(long, value_name = "DIR")]
    r#static: Option<PathBuf>,
    /// Folder of a sentence transformer; needs the feature `minilm`
    #[arg(long, value_name = "DIR")]
    minilm: Option<PathBuf>,
}

impl Models {
    /// The embedders whose folders were named.
    pub(crate) fn open(&self) -> Result<Vec<(&'static str, Box<dyn Embedder>)>, Failure> {
        let mut models: Vec<(&str, Box<dyn Embedder>)> = Vec::new();
        if let Some(folder) = &self.r#static {
            models.push(("static", open_static(folder)?));
        }
        if let Some(folder) = &self.minilm {
            models.push(("MiniLM", open_minilm(folder)?));
        }
        Ok(models)
    }
}

#[cfg(feature = "static")]
fn open_static(folder: &Path) -> Result<Box<dyn Embedder>, Failure> {
    Ok(Box::new(sage_services::StaticEmbedder::open(folder)?))
}

#[cfg(not(feature = "static"))]
fn open_static(_folder: &Path) -> Result<Box<dyn Embedder>, Failure> {
    Err("build with `--features static`".into())
}

#[cfg(feature = "minilm")]
fn open_minilm(folder: &Path) -> Result<Box<dyn Embedder>, Failure> {
    Ok(Box::new(sage_services::MiniLmEmbedder::open(folder)?))
}

#[cfg(not(feature = "minilm"))]
fn open_minilm(_folder: &Path) -> Result<Box<dyn Embedder>, Failure> {
    Err("build with `--features minilm`".into())
}
