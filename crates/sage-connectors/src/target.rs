//! Where an output file lies: the end of its links, the temporary file beside it, the parts of several replicas, and
//! who may read them.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::error::OutputError;
use crate::open::Compression;
use crate::output::Disk;

/// The mode of a new file, before the process's mask.
const NEW_FILE_MODE: u32 = 0o666;
const PRIVATE_MODE: u32 = 0o600;
/// As many links as Linux follows, and its error for more.
const MOST_LINKS: u32 = 40;
const TOO_MANY_LINKS: i32 = 40;
/// The bits of a mode that say who may do what.
const MODE_BITS: u32 = 0o777;

/// Opens a device or a pipe.
pub(crate) fn in_place(path: &Path, parallelism: usize) -> Result<(PathBuf, File), OutputError> {
    let path = path.to_owned();
    if parallelism > 1 {
        return Err(OutputError::Shared { path, parallelism });
    }
    let file = OpenOptions::new().write(true).open(&path);
    let file = file.map_err(|source| OutputError::Create { path: path.clone(), source })?;
    Ok((path, file))
}

/// Makes a temporary file beside the target; if the target is a link, beside the file it leads to.
pub(crate) fn beside(target: PathBuf, private: bool) -> Result<(PathBuf, File, TempPath), OutputError> {
    let target = end_of_links(target.clone()).map_err(|source| OutputError::Create { path: target, source })?;
    if target.is_dir() {
        return Err(OutputError::Folder { path: target });
    }
    let replaced = mode_of(&target);
    let mode = if private || replaced.is_some() { PRIVATE_MODE } else { NEW_FILE_MODE };
    let made = tempfile::Builder::new()
        .prefix(".sage-")
        .suffix(".tmp")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder(&target))
        .and_then(|made| replaced.map_or(Ok(()), |mode| made.as_file().set_mode(mode)).map(|()| made.into_parts()));
    let (file, temporary) = made.map_err(|source| OutputError::Create { path: target.clone(), source })?;
    Ok((target, file, temporary))
}

/// Where a link leads, even if there is no file yet.
fn end_of_links(mut target: PathBuf) -> io::Result<PathBuf> {
    for _ in 0..MOST_LINKS {
        if !target.is_symlink() {
            return Ok(target);
        }
        target = folder(&target).join(fs::read_link(&target)?);
    }
    Err(io::Error::from_raw_os_error(TOO_MANY_LINKS))
}

/// The mode of the existing file, if there is one.
pub(crate) fn mode_of(target: &Path) -> Option<u32> {
    fs::metadata(target).ok().map(|about| about.mode() & MODE_BITS)
}

/// The folder of a file.
pub(crate) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The file of one replica: the path itself if it is the only one, otherwise with its number before the extension.
pub(crate) fn part(path: &Path, replica: usize, parallelism: usize) -> PathBuf {
    if parallelism == 1 {
        return path.to_owned();
    }
    let mut extension = OsString::new();
    let mut stem = path.to_owned();
    if Compression::of(path) != Compression::None {
        extension = dotted(path);
        stem.set_extension("");
    }
    let mut inner = dotted(&stem);
    inner.push(extension);
    stem.set_extension("");
    let mut name = stem.file_name().unwrap_or_default().to_owned();
    name.push(format!(".part-{replica:05}-of-{parallelism:05}"));
    name.push(inner);
    path.with_file_name(name)
}

/// The extension with its dot, or nothing.
fn dotted(path: &Path) -> OsString {
    let mut dotted = OsString::new();
    if let Some(extension) = path.extension() {
        dotted.push(".");
        dotted.push(extension);
    }
    dotted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_numbered_before_the_extensions() {
        let named = |path: &str| part(Path::new(path), 3, 12).to_str().unwrap().to_owned();
        assert_eq!(named("out/v1.2-a.jsonl.gz"), "out/v1.2-a.part-00003-of-00012.jsonl.gz");
        assert_eq!(named("a.csv"), "a.part-00003-of-00012.csv");
        assert_eq!(named("/x/plain"), "/x/plain.part-00003-of-00012");
        assert_eq!(part(Path::new("a.csv"), 0, 1), Path::new("a.csv"));
    }

    #[test]
    fn nobody_may_read_the_temporary_file_who_may_not_read_the_target() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & MODE_BITS;
        for expected in [0o600, 0o640, 0o444, 0o777] {
            let target = dir.path().join(format!("{expected:o}"));
            fs::write(&target, "old").unwrap();
            fs::set_permissions(&target, Permissions::from_mode(expected)).unwrap();
            for private in [false, true] {
                let (_, _, temporary) = beside(target.clone(), private).unwrap();
                assert_eq!(mode(&temporary), expected);
            }
        }
        let (_, _, private) = beside(dir.path().join("new"), true).unwrap();
        assert_eq!(mode(&private), 0o600);
        let (usual, (_, _, temporary)) = (dir.path().join("usual"), beside(dir.path().join("new"), false).unwrap());
        fs::write(&usual, "").unwrap();
        assert_eq!(mode(&temporary), mode(&usual));
    }
}
