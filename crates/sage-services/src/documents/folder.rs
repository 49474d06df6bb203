//! Finds the documents below a folder and reads them as text, one at a time.
//!
//! Invariants:
//! 1. The order is that of the names, so that two runs over one folder see the same.
//! 2. Nothing is read before it is asked for, and nothing is kept: a walk holds one open folder per level.
//! 3. Every file with a wanted extension is either given or named by an error.
//!
//! Knows nothing of formats and passages.

use std::path::{Path, PathBuf};
use std::{fs, io};

use thiserror::Error;
use walkdir::{DirEntry, WalkDir};

/// Longest file that is read, 16 MiB: a document is held in memory while it is cut.
pub const MAX_DOCUMENT_BYTES: u64 = 16 << 20;

/// Folders whose files somebody else or a machine wrote.
const LEFT_OUT: &[&str] = &["target", "node_modules"];

/// Why a document was passed over.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The file, or a folder on the way to it, cannot be read.
    #[error("`{}` cannot be read", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file holds a zero byte, so it is not text.
    #[error("`{}` is not text: it holds a zero byte", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// The file is longer than [`MAX_DOCUMENT_BYTES`].
    #[error("`{}` has {size_bytes} bytes; documents may have {MAX_DOCUMENT_BYTES}", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
    },
}

/// The text of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentText {
    /// The text, with U+FFFD for bytes that are not UTF-8.
    pub text: String,
    /// Whether all of the file was UTF-8.
    pub is_utf8: bool,
}

/// Returns the paths of the files below `folder` that end in one of `extensions` (`md` or `.md`, in any case), in the
/// order of their names. Reads as it goes.
///
/// Hidden files and folders, `target` and `node_modules` are left out; links are not followed, except for `folder`
/// itself.
///
/// Each error names a folder that could not be read; the walk then goes on.
pub fn documents(
    folder: &Path,
    extensions: &[String],
) -> impl Iterator<Item = Result<PathBuf, DocumentError>> + Send + use<> {
    let extensions = extensions.to_vec();
    let is_wanted = move |entry: &DirEntry| {
        let extension = entry.path().extension();
        entry.file_type().is_file()
            && extension.is_some_and(|extension| {
                extensions.iter().any(|wanted| extension.eq_ignore_ascii_case(wanted.trim_start_matches('.')))
            })
    };
    let folder = folder.to_owned();
    WalkDir::new(&folder).sort_by_file_name().into_iter().filter_entry(is_entered).filter_map(
        move |entry| match entry {
            Ok(entry) => is_wanted(&entry).then(|| Ok(entry.into_path())),
            Err(error) => {
                let path = error.path().unwrap_or(&folder).to_owned();
                Some(Err(DocumentError::Read { path, source: error.into() }))
            }
        },
    )
}

fn is_entered(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let hidden = name.as_encoded_bytes().starts_with(b".");
    let left_out = entry.file_type().is_dir() && LEFT_OUT.iter().any(|left_out| name == *left_out);
    entry.depth() == 0 || !(hidden || left_out)
}

/// Reads a file as text.
///
/// # Errors
/// [`DocumentError`], one variant for each reason.
pub fn read_document(path: &Path) -> Result<DocumentText, DocumentError> {
    let failed = |source| DocumentError::Read { path: path.to_owned(), source };
    let size_bytes = fs::metadata(path).map_err(failed)?.len();
    if size_bytes > MAX_DOCUMENT_BYTES {
        return Err(DocumentError::TooLong { path: path.to_owned(), size_bytes });
    }
    let bytes = fs::read(path).map_err(failed)?;
    if bytes.contains(&0) {
        return Err(DocumentError::NotText { path: path.to_owned() });
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => DocumentText { text, is_utf8: true },
        Err(error) => DocumentText { text: String::from_utf8_lossy(error.as_bytes()).into_owned(), is_utf8: false },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, contents) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        folder
    }

    #[test]
    fn wanted_files_come_in_the_order_of_their_names() {
        let names =
            ["b.md", "a/z.MD", "a/b.txt", "c.rs", ".git/d.md", "target/e.md", "a/node_modules/f.md", ".g.md", "md"];
        let folder = folder(&names.map(|name| (name, &b"text"[..])));
        std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
        let found: Vec<_> = documents(folder.path(), &["md".to_owned(), ".txt".to_owned()])
            .map(|path| path.unwrap().strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(found, ["a/b.txt", "a/z.MD", "b.md"]);
    }

    #[test]
    fn a_folder_that_is_left_out_by_name_can_be_asked_for() {
        let outer = folder(&[("target/a.md", b"text")]);
        assert_eq!(documents(&outer.path().join("target"), &["md".to_owned()]).count(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = folder(&[("binary.txt", b"a\0b"), ("latin.txt", b"caf\xe9")]);
        let missing = folder.path().join("missing");
        let walked: Vec<_> = documents(&missing, &["md".to_owned()]).collect();
        assert!(matches!(&walked[..], [Err(DocumentError::Read { path, .. })] if *path == missing), "{walked:?}");
        assert!(matches!(read_document(&missing), Err(DocumentError::Read { .. })));
        assert!(matches!(read_document(&folder.path().join("binary.txt")), Err(DocumentError::NotText { .. })));
        let latin = read_document(&folder.path().join("latin.txt")).unwrap();
        assert_eq!(latin, DocumentText { text: "caf\u{fffd}".to_owned(), is_utf8: false });
    }

    #[test]
    fn a_file_too_long_is_not_read() {
        let folder = folder(&[("long.txt", b"")]);
        let path = folder.path().join("long.txt");
        fs::File::create(&path).unwrap().set_len(MAX_DOCUMENT_BYTES + 1).unwrap();
        let error = read_document(&path).unwrap_err();
        assert!(error.to_string().ends_with("has 16777217 bytes; documents may have 16777216"), "{error}");
    }
}
