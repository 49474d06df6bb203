//! Finds the documents below a folder.
//!
//! Invariants:
//! 1. The order is that of the names, so that two runs over one folder see the same.
//! 2. No folder is read before it is asked for, and nothing is kept: a walk holds one open folder per level.
//! 3. Every file with a wanted extension is either given or named by an error.
//!
//! Knows nothing of formats and passages.

use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::load::DocumentError;

/// Folders whose files somebody else or a machine wrote.
const LEFT_OUT: &[&str] = &["target", "node_modules"];

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

#[cfg(test)]
mod tests {
    use std::fs;

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
    fn a_folder_that_is_missing_is_named() {
        let missing = folder(&[]).path().join("missing");
        let walked: Vec<_> = documents(&missing, &["md".to_owned()]).collect();
        assert!(matches!(&walked[..], [Err(DocumentError::Read { path, .. })] if *path == missing), "{walked:?}");
    }

    #[test]
    fn an_empty_folder_has_no_documents() {
        assert_eq!(documents(folder(&[]).path(), &["md".to_owned()]).count(), 0);
    }
}
