//! What the tests share: a memory whose clock a test moves.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use sage_services::memory::{Memory, NewTurn, Scope, Turn};

/// A clock that stands still until it is moved.
#[derive(Clone)]
pub(crate) struct Clock(Arc<AtomicI64>);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(1_800_000_000_000_000)))
    }

    pub(crate) fn forward(&self, seconds: f64) {
        self.0.fetch_add((seconds * 1e6) as i64, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.0.load(Ordering::Relaxed)).unwrap()
    }

    pub(crate) fn of(&self, memory: Memory) -> Memory {
        let clock = self.clone();
        memory.clock(move || clock.now())
    }
}

pub(crate) fn opened(path: &Path) -> Memory {
    let memory = Memory::at(path);
    memory.open().unwrap();
    memory
}

pub(crate) fn in_memory() -> Memory {
    let memory = Memory::in_memory();
    memory.open().unwrap();
    memory
}

pub(crate) fn session(name: &str) -> Scope {
    Scope::tenant("t").user("u").session(name)
}

pub(crate) fn turn(id: &str, text: &str) -> NewTurn {
    NewTurn::user(text).id(id)
}

pub(crate) fn texts(turns: &[Turn]) -> Vec<&str> {
    turns.iter().map(|turn| &*turn.text).collect()
}

pub(crate) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Fails if a file of a folder has one of these.
pub(crate) fn assert_nowhere(folder: &Path, traces: &[Vec<u8>]) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_nowhere(&path, traces);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for trace in traces {
            assert!(!contains(&bytes, trace), "{} has {:?}", path.display(), String::from_utf8_lossy(trace));
        }
    }
}
