//! Sockets in the folders of this user: where they lie may be longer than the address of a socket, and nobody else is
//! heard.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;

/// Listens at this path, in the place of whoever listened there before and is gone.
///
/// # Errors
/// Those of the system.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = by_short_path(path, |short| UnixListener::bind(short))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to whoever listens at this path.
///
/// # Errors
/// Those of the system; [`PermissionDenied`](io::ErrorKind::PermissionDenied) if that is another user.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = by_short_path(path, |short| UnixStream::connect(short))?;
    check_peer(&stream)?;
    Ok(stream)
}

/// Fails with [`PermissionDenied`](io::ErrorKind::PermissionDenied) if a process of another user is at the other end.
///
/// # Errors
/// This one, and those of the system.
pub fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = getsockopt(stream, sockopt::PeerCredentials)?;
    if peer.uid() == geteuid().as_raw() || peer.uid() == 0 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "a process of another user is at the other end"))
}

/// An address of a socket has 107 bytes at most: the folder is opened, and called by its number.
fn by_short_path<T>(path: &Path, action: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of a socket"));
    };
    let folder = File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?;
    action(&PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_long_path_is_no_hindrance() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("x".repeat(200));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("socket");
        let listener = listen(&path).unwrap();
        connect(&path).unwrap().write_all(b"here").unwrap();
        let mut said = String::new();
        listener.accept().unwrap().0.read_to_string(&mut said).unwrap();
        assert_eq!(said, "here");
        // In the place of the one before.
        drop(listener);
        listen(&path).unwrap();
    }
}
