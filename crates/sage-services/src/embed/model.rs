//! Folders of models: [`ModelFolder`] finds files and reads them, [`ModelError`] says what is wrong with them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sage::BoxError;

/// Why a model cannot be opened, or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The folder lacks a file.
    #[error("{} has no {file}; {needs}", folder.display())]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// The file that it lacks.
        file: &'static str,
        /// Which files such a model has, and where to get them.
        needs: &'static str,
    },
    /// The folder has several files of a kind.
    #[error("{} has both {one} and {other}, and only one can be the model's", folder.display())]
    Ambiguous {
        /// The folder.
        folder: PathBuf,
        /// One of the files.
        one: String,
        /// Another one.
        other: String,
    },
    /// A file or folder cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} is not as it should be", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BoxError,
    },
    /// A tensor is missing, or not as it should be.
    #[error("in {}, tensor `{tensor}` {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizer cannot cut a text into tokens.
    #[error("the text cannot be cut into tokens")]
    Tokens(#[source] BoxError),
}

impl ModelError {
    pub(crate) fn malformed(path: &Path, reason: impl Into<BoxError>) -> Self {
        Self::Malformed { path: path.to_owned(), source: reason.into() }
    }
}

/// A file that was read whole.
pub(crate) struct ModelFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

impl ModelFile {
    fn read(path: PathBuf) -> Result<Self, ModelError> {
        match fs::read(&path) {
            Ok(bytes) => Ok(Self { path, bytes }),
            Err(source) => Err(ModelError::Unreadable { path, source }),
        }
    }

    /// Reads it as a JSON object.
    pub(crate) fn json(&self) -> Result<serde_json::Value, ModelError> {
        let value: serde_json::Value =
            serde_json::from_slice(&self.bytes).map_err(|error| ModelError::malformed(&self.path, error))?;
        if value.is_object() { Ok(value) } else { Err(ModelError::malformed(&self.path, "it is no JSON object")) }
    }
}

/// A folder with the files of a model.
pub(crate) struct ModelFolder<'a> {
    path: &'a Path,
    /// Which files such a model has, and where to get them.
    needs: &'static str,
}

impl<'a> ModelFolder<'a> {
    pub(crate) fn open(path: &'a Path, needs: &'static str) -> Result<Self, ModelError> {
        match fs::read_dir(path) {
            Ok(_) => Ok(Self { path, needs }),
            Err(source) => Err(ModelError::Unreadable { path: path.to_owned(), source }),
        }
    }

    /// Reads a file that the folder may have.
    pub(crate) fn read_if_there(&self, name: &str) -> Result<Option<ModelFile>, ModelError> {
        let path = self.path.join(name);
        if path.exists() { ModelFile::read(path).map(Some) } else { Ok(None) }
    }

    /// Reads a file that the folder must have.
    pub(crate) fn read(&self, name: &'static str) -> Result<ModelFile, ModelError> {
        self.read_if_there(name)?.ok_or_else(|| self.lacks(name))
    }

    /// Reads the only file in one of the subfolders whose name ends so.
    pub(crate) fn read_only_one(&self, subfolders: &[&str], ending: &str) -> Result<Option<ModelFile>, ModelError> {
        let mut found: Option<PathBuf> = None;
        for subfolder in subfolders {
            // A subfolder that is not there has no such file.
            for entry in fs::read_dir(self.path.join(subfolder)).into_iter().flatten().flatten() {
                let path = entry.path();
                if !path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(ending)) || !path.is_file() {
                    continue;
                }
                if let Some(other) = found {
                    let [one, other] = [other, path].map(|path| name_of(&path));
                    return Err(ModelError::Ambiguous { folder: self.path.to_owned(), one, other });
                }
                found = Some(path);
            }
        }
        found.map(ModelFile::read).transpose()
    }

    pub(crate) fn lacks(&self, file: &'static str) -> ModelError {
        ModelError::Missing { folder: self.path.to_owned(), file, needs: self.needs }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The hash of all that decides the vectors of a model: how they are made of it, its files, its settings.
pub(crate) fn hash_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        // With its length, no part can be taken for the beginning of the next.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex().to_string()
}
