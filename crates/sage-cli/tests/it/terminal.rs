//! `sage run` on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;

use nix::pty::openpty;
use nix::unistd::setsid;
use tempfile::tempdir;

use super::marked::{Marked, come};

#[test]
fn what_the_terminal_sends_comes_once() {
    let (folder, marked) = (tempdir().expect("a folder is made"), Marked::new());
    let script =
        "trap 'echo $((n += 1)) > told$n' INT; echo $$ > begun; until [ -e end ]; do sleep 0.01; done; echo $n";
    let terminal = openpty(None, None).expect("there are terminals");
    let mut sage = marked.script(folder.path(), script);
    let its = || terminal.slave.try_clone().expect("there are descriptors");
    sage.stdin(its()).stdout(its()).stderr(its());
    // SAFETY: it only makes system calls.
    unsafe {
        sage.pre_exec(|| {
            setsid()?;
            // SAFETY: it takes a number, and makes the standard input the terminal of this session.
            let made = nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0);
            if made < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        })
    };
    let mut child = sage.spawn().expect("sage runs");
    drop(sage);
    come(&folder.path().join("begun"));
    let mut keys = File::from(terminal.master);
    keys.write_all(b"\x03").expect("it is typed");
    come(&folder.path().join("told1"));
    std::fs::write(folder.path().join("end"), "").expect("it is written");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    drop(terminal.slave);
    let mut shown = Vec::new();
    // A terminal that nobody has any more is an error, behind what it was sent.
    let _ = keys.read_to_end(&mut shown);
    assert!(String::from_utf8_lossy(&shown).trim_end().ends_with('1'), "{}", String::from_utf8_lossy(&shown));
    marked.have_none();
}
