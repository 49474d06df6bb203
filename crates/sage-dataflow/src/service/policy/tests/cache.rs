//! A cache: in memory and on disk, each within its bounds.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;

use super::super::cache::{Cache, DiskCache, Memory, WhenInUse};
use super::super::key::{CallKey, TagKey};
use super::super::store::StoreError;

fn key(n: u8) -> CallKey {
    CallKey([n; 16])
}

#[test]
fn those_that_were_not_asked_for_longest_leave_the_memory() {
    let (memory, now) = (Memory::new(2, u64::MAX, None), Instant::now());
    memory.put(key(1), Arc::new("one"), 3, None, now);
    memory.put(key(2), Arc::new("two"), 3, None, now);
    assert_eq!(memory.get(key(1), now).as_deref(), Some(&"one"));
    memory.put(key(3), Arc::new("three"), 5, None, now);
    assert_eq!([1, 2, 3].map(|n| memory.get(key(n), now).is_some()), [true, false, true]);
    let figures = memory.figures();
    assert_eq!((figures.entries, figures.bytes, figures.hits, figures.evicted), (2, 2 * 128 + 8, 3, 1));
}

#[test]
fn an_answer_that_is_too_large_or_too_old_or_erased_is_not_in_memory() {
    let (lives, now) = (Duration::from_secs(10), Instant::now());
    let memory = Memory::new(10, 1_000, Some(lives));
    memory.put(key(1), Arc::new(1), 873, None, now);
    assert_eq!(memory.get(key(1), now), None, "with what it takes beside, it has 1,001 bytes");
    memory.put(key(1), Arc::new(1), 872, None, now);
    assert_eq!(memory.get(key(1), now + lives - Duration::from_nanos(1)).as_deref(), Some(&1));
    assert_eq!(memory.get(key(1), now + lives), None);
    assert_eq!(memory.figures().bytes, 0);
    for n in 2..5 {
        memory.put(key(n), Arc::new(2), 8, (n < 4).then_some(TagKey([7; 16])), now);
    }
    assert_eq!(memory.erase(TagKey([7; 16])), 2);
    assert_eq!([2, 3, 4].map(|n| memory.get(key(n), now).is_some()), [false, false, true]);
    let always = Memory::new(1, u64::MAX, Some(Duration::MAX));
    always.put(key(1), Arc::new(1), u64::MAX, None, now);
    assert!(always.get(key(1), now).is_some(), "for ever is no overflow");
}

proptest! {
    #[test]
    fn memory_keeps_its_bounds_and_gives_what_was_put_last(
        steps in prop::collection::vec((any::<bool>(), 0..8_u8, 0..300_u64), 0..60),
        most in 1..6_usize,
        most_bytes in 1..2_000_u64,
    ) {
        let (memory, now) = (Memory::new(most, most_bytes, None), Instant::now());
        let mut last = std::collections::HashMap::new();
        for (at, (puts, n, bytes)) in steps.into_iter().enumerate() {
            if puts {
                memory.put(key(n), Arc::new(at), bytes, None, now);
                last.insert(n, at);
                prop_assert_eq!(memory.get(key(n), now).is_some(), bytes + 128 <= most_bytes);
            } else if let Some(found) = memory.get(key(n), now) {
                prop_assert_eq!(Some(&*found), last.get(&n));
            }
            let figures = memory.figures();
            prop_assert!(figures.entries <= most as u64 && figures.bytes <= most_bytes);
            prop_assert_eq!(figures.entries == 0, figures.bytes == 0);
        }
    }
}

#[test]
fn a_cache_on_disk_is_found_again_and_keeps_its_bound() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new().disk(folder.path().join("c"), 10_000);
    let disk = DiskCache::open(&cache).unwrap().unwrap();
    for n in 0..200 {
        let tag = (n % 2 == 0).then_some(TagKey([7; 16]));
        disk.put(key(n), tag, &[n; 100]);
        assert_eq!(disk.get(key(n)).as_deref(), Some(&[n; 100][..]));
        assert!(disk.figures().bytes <= 10_000);
    }
    let figures = disk.figures();
    assert!((30..62).contains(&figures.entries) && figures.uncached == 0, "{figures:?}");
    disk.put(key(250), None, &[0; 6_000]);
    assert_eq!((disk.get(key(250)), disk.figures().uncached), (None, 1), "more than half of the bound");
    assert!(disk.erase(TagKey([7; 16])).unwrap() >= 15);
    drop(disk);

    // As a kill leaves it while the file is written anew.
    std::fs::write(folder.path().join("c/answers.new"), "half").unwrap();
    let disk = DiskCache::open(&cache).unwrap().unwrap();
    assert!(!folder.path().join("c/answers.new").exists());
    assert_eq!(disk.get(key(199)).as_deref(), Some(&[199; 100][..]));
    assert_eq!([198, 0].map(|n| disk.get(key(n))), [None, None]);
    let about = std::fs::metadata(folder.path().join("c/answers")).unwrap();
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_folder_that_is_in_use_is_an_error_or_done_without() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new().disk(folder.path(), 10_000);
    let first = DiskCache::open(&cache).unwrap();
    assert!(first.is_some());
    assert!(matches!(DiskCache::open(&cache), Err(StoreError::InUse { .. })));
    assert!(DiskCache::open(&cache.when_in_use(WhenInUse::GoOn)).unwrap().is_none());
    assert!(DiskCache::open(&Cache::new().memory(1, 1)).unwrap().is_none());
}

#[test]
fn answers_on_disk_grow_old() {
    let folder = tempfile::tempdir().unwrap();
    let lives = Duration::from_secs(10);
    let disk = |cache: Cache| DiskCache::open(&cache.disk(folder.path(), 10_000)).unwrap().unwrap();
    let mortal = disk(Cache::new().time_to_live(lives));
    let before = SystemTime::now();
    mortal.put(key(1), None, b"one");
    let is_there = |disk: &DiskCache, now| disk.get_at(key(1), now).is_some();
    assert!(is_there(&mortal, before + lives - Duration::from_millis(1)));
    assert!(!is_there(&mortal, SystemTime::now() + lives));
    // The clock was set back.
    assert!(is_there(&mortal, before - lives));
    drop(mortal);
    for cache in [Cache::new(), Cache::new().time_to_live(Duration::MAX)] {
        assert!(is_there(&disk(cache), before + 1_000 * lives));
    }
}

#[test]
fn settings_of_a_cache_that_keeps_nothing_are_told() {
    let told = |cache: Cache| cache.mistake();
    assert_eq!(told(Cache::new().memory(1, 1).disk("c", 1).time_to_live(Duration::MAX)), None);
    for cache in [Cache::new().memory(0, 1), Cache::new().memory(1, 0)] {
        assert_eq!(told(cache).unwrap(), "a cache in memory of size zero");
    }
    assert_eq!(told(Cache::new().disk("c", 0)).unwrap(), "a cache on disk of size zero");
    assert_eq!(told(Cache::new().disk("", 1)).unwrap(), "a cache on disk needs the name of a folder");
    assert!(told(Cache::new().time_to_live(Duration::ZERO)).unwrap().starts_with("answers that live for no time"));
    assert!(told(Cache::new().largest_answer(0)).is_some());
}
