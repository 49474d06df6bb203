//! A `sage` whose processes can be found, whatever they do.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// In the environment of all that one test starts.
const NAME: &str = "SAGE_TEST_MARK";

/// The contract's limit for what is left of a job that was killed.
const SOON: Duration = Duration::from_secs(2);

pub(crate) struct Marked(String);

impl Marked {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        Self(format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    /// The variable that is the mark.
    pub(crate) fn variable(&self) -> (String, String) {
        (NAME.to_owned(), self.0.clone())
    }

    /// `sage` with these arguments.
    pub(crate) fn sage(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sage"));
        command.args(arguments).env(NAME, &self.0).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// `sage run` of a shell script, which is kept in a folder.
    pub(crate) fn script(&self, folder: &Path, text: &str) -> Command {
        let file = folder.join("job");
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).expect("a file is written");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&file, executable).expect("it is made executable");
        let mut sage = self.sage(&["run", file.to_str().expect("it is text")]);
        sage.current_dir(folder);
        sage
    }

    /// The processes that carry the mark: their pids and names.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let mark = format!("{NAME}={}", self.0);
        let entries = fs::read_dir("/proc").expect("there is /proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter_map(|pid| {
            let variables = fs::read(format!("/proc/{pid}/environ")).ok()?;
            variables.split(|byte| *byte == 0).find(|variable| *variable == mark.as_bytes())?;
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            Some((pid, name.trim_end().to_owned()))
        })
        .collect()
    }

    /// Waits until there is none.
    pub(crate) fn are_gone(&self) {
        let begun = Instant::now();
        while let left @ [_, ..] = &self.processes()[..] {
            assert!(begun.elapsed() < SOON, "{left:?} are left after 2 s");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn have_none(&self) {
        assert_eq!(self.processes(), [], "when `sage run` has ended");
    }
}

/// Waits until a file is there, and returns its text.
pub(crate) fn come(file: &Path) -> String {
    let begun = Instant::now();
    loop {
        match fs::read_to_string(file) {
            Ok(text) if text.ends_with('\n') => return text.trim_end().to_owned(),
            _ => assert!(begun.elapsed() < Duration::from_secs(20), "{} did not come", file.display()),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
