//! Answers in a file under shuttle: none is handed on before it is on the medium, and a reader never meets half an
//! answer.

#![expect(dead_code, reason = "the engine's files are compiled whole; a model uses a part of them")]
#![expect(unreachable_pub, reason = "what the engine's files make public is public in its crate")]

use sage::BoxError;

use super::under_shuttle::sync;

#[path = "../../../src/service/policy/store/mod.rs"]
#[expect(unused_imports, reason = "no model opens a folder")]
mod engine;
#[path = "../../../src/service/policy/key.rs"]
mod key;

use std::io;
use std::path::Path;

use engine::{Disk, FileKind, Kind, Store};
use key::{CallKey, TagKey};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

/// A file in memory, which knows how much of it is on the medium.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<(Vec<u8>, usize)>>);

impl Memory {
    fn synced(&self) -> usize {
        self.0.lock().expect("nobody panics").1
    }
}

impl Disk for Memory {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.0.lock().expect("nobody panics").0.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        // A reader meets what a writer has written so far.
        for (at, byte) in into.chunks_mut(32).enumerate() {
            let from = offset as usize + at * 32;
            byte.copy_from_slice(&self.0.lock().expect("nobody panics").0[from..from + byte.len()]);
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        for (at, part) in bytes.chunks(32).enumerate() {
            let (file, from) = (&mut self.0.lock().expect("nobody panics").0, offset as usize + at * 32);
            let length = file.len().max(from + part.len());
            file.resize(length, 0);
            file[from..from + part.len()].copy_from_slice(part);
        }
        Ok(())
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.0.lock().expect("nobody panics").0.truncate(bytes as usize);
        Ok(())
    }

    /// What is written meanwhile may have come too late.
    fn sync(&self) -> io::Result<()> {
        let length = self.0.lock().expect("nobody panics").0.len();
        thread::yield_now();
        let synced = &mut self.0.lock().expect("nobody panics").1;
        *synced = length.max(*synced);
        Ok(())
    }
}

const FRAME: usize = 64 + 40;

fn open(memory: &Memory, syncs: bool) -> Arc<Store<Memory>> {
    Arc::new(Store::open(memory.clone(), Path::new("x"), FileKind::Journal, syncs, 100).expect("it is new"))
}

fn key(n: u8) -> CallKey {
    CallKey([n; 16])
}

fn put(store: &Store<Memory>, n: u8) {
    store.append(Kind::Answer, key(n), Some(TagKey([9; 16])), &[n; 40]).expect("there is room");
}

#[test]
fn what_append_and_get_return_is_on_the_medium() {
    shuttle::check_random(
        || {
            let memory = Memory::default();
            let store = open(&memory, true);
            let writers = (0..3_u8).map(|n| {
                let (store, memory) = (store.clone(), memory.clone());
                thread::spawn(move || {
                    put(&store, n);
                    let synced = memory.synced();
                    let place = memory.0.lock().expect("nobody panics").0.windows(40).position(|part| part == [n; 40]);
                    assert!(place.expect("it is written") + 40 <= synced, "an answer was handed on too early");
                })
            });
            let reader = {
                let (store, memory) = (store.clone(), memory.clone());
                thread::spawn(move || {
                    if store.get(key(1)).expect("nothing is damaged").is_some() {
                        assert!(memory.synced() >= 64 + FRAME, "an answer was read too early");
                    }
                })
            };
            let threads: Vec<_> = writers.chain([reader]).collect();
            threads.into_iter().for_each(|thread| thread.join().expect("nothing panics"));
            assert_eq!(memory.synced(), 64 + 3 * FRAME);
        },
        1_000,
    );
}

#[test]
fn a_reader_gets_a_whole_answer_or_none_while_it_is_erased() {
    shuttle::check_random(
        || {
            let store = open(&Memory::default(), false);
            put(&store, 1);
            put(&store, 2);
            let eraser = {
                let store = store.clone();
                thread::spawn(move || assert_eq!(store.erase(TagKey([9; 16])).expect("it is in memory"), 2))
            };
            let writer = {
                let store = store.clone();
                thread::spawn(move || store.append(Kind::Answer, key(3), None, &[3; 40]).expect("there is room"))
            };
            for _ in 0..2 {
                let found = store.get(key(2)).expect("nothing is damaged");
                assert!(found.is_none_or(|(bytes, _)| bytes == [2; 40]));
            }
            eraser.join().expect("nothing panics");
            writer.join().expect("nothing panics");
            assert_eq!(store.get(key(3)).expect("nothing is damaged").expect("it is there").0, [3; 40]);
        },
        1_000,
    );
}
