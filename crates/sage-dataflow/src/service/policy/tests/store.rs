//! A store: what was kept is found again, whatever a crash has left of the file.

use std::collections::HashMap;
use std::path::Path;

use proptest::prelude::*;

use super::super::key::{CallKey, TagKey};
use super::super::store::{FileKind, Kind, Store, StoreError};
use super::disk::{Done, Fake};

const HEAD: usize = 64;

fn try_open(fake: &Fake) -> Result<Store<Fake>, StoreError> {
    Store::open(fake.clone(), Path::new("answers"), FileKind::Journal, false, 1 << 20)
}

fn open(fake: &Fake) -> Store<Fake> {
    try_open(fake).unwrap()
}

fn key(n: u8) -> CallKey {
    CallKey([n; 16])
}

fn tag(n: u8) -> TagKey {
    TagKey([n; 16])
}

fn put(store: &Store<Fake>, n: u8, answer: &str) {
    store.append(Kind::Answer, key(n), None, answer.as_bytes()).unwrap();
}

fn text(store: &Store<Fake>, n: u8) -> Option<String> {
    store.get(key(n)).unwrap().map(|(bytes, _)| String::from_utf8(bytes).unwrap())
}

/// Where the frames begin, and where the last ends.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mut at = vec![HEAD];
    while let Some(length) = bytes[*at.last().unwrap()..].get(4..8) {
        at.push(at.last().unwrap() + HEAD + u32::from_le_bytes(*length.first_chunk().unwrap()) as usize);
    }
    at
}

#[test]
fn an_answer_is_found_again_also_when_the_file_is_opened_again() {
    let fake = Fake::default();
    let store = open(&fake);
    put(&store, 1, "one");
    put(&store, 2, "");
    put(&store, 1, "another one");
    for store in [&store, &open(&fake)] {
        assert_eq!([1, 2, 3].map(|n| text(store, n)), [Some("another one".to_owned()), Some(String::new()), None]);
        assert_eq!(store.size().entries, 2);
    }
    assert_eq!(store.size().bytes, fake.contents().len() as u64);
    let limit = store.append(Kind::Answer, key(1), None, &vec![0; (1 << 20) + 1]);
    assert!(matches!(limit, Err(StoreError::TooLarge { bytes: 1_048_577, limit: 1_048_576 })));
}

#[test]
fn a_call_that_began_is_named_until_it_ends() {
    let fake = Fake::default();
    let store = open(&fake);
    for n in [1, 2, 3] {
        store.append(Kind::Begun, key(n), None, &[]).unwrap();
    }
    assert_eq!(fake.contents().len(), HEAD + 3 * 64, "a mark has 64 bytes");
    put(&store, 1, "one");
    store.append(Kind::Ended, key(2), None, &[]).unwrap();
    assert_eq!(open(&fake).begun(), [key(3)]);
}

#[test]
fn a_file_that_is_cut_anywhere_loses_what_was_cut_alone() {
    let fake = Fake::default();
    let store = open(&fake);
    for (n, answer) in [(1, "one"), (2, "two"), (3, "three")] {
        put(&store, n, answer);
    }
    let whole = fake.contents();
    let frames = frames(&whole);
    for length in 0..=whole.len() {
        let fake = Fake::with(whole[..length].to_vec());
        let store = open(&fake);
        let kept = frames.iter().skip(1).filter(|end| **end <= length).count();
        let torn = if length < HEAD { 0 } else { length - frames[kept] };
        assert_eq!((store.size().entries, store.size().torn), (kept as u64, torn as u64), "cut to {length}");
        put(&store, 4, "four");
        let store = open(&fake);
        assert_eq!((store.size().entries, store.size().torn), (kept as u64 + 1, 0));
        assert_eq!(text(&store, 4).as_deref(), Some("four"));
    }
}

#[test]
fn damage_in_the_middle_is_refused_with_its_place() {
    let fake = Fake::default();
    let store = open(&fake);
    for (n, answer) in [(1, "one"), (2, "two"), (3, "three")] {
        put(&store, n, answer);
    }
    let whole = fake.contents();
    let frames = frames(&whole);
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        match (try_open(&Fake::with(bytes)), frames.iter().rev().find(|start| **start <= at)) {
            // Nothing tells what is damaged at the end from what was not written.
            (Ok(store), Some(&start)) if start == frames[2] => assert_eq!(store.size().entries, 2),
            (Err(StoreError::Damaged { offset, .. }), Some(&start)) => assert_eq!(offset, start as u64),
            (Err(StoreError::Damaged { offset: 0, .. }), None) => assert!((12..HEAD).contains(&at)),
            (Err(StoreError::Foreign { .. }), None) => assert!(at < 8),
            (Err(StoreError::Newer { .. }), None) => assert!((8..12).contains(&at)),
            (result, _) => panic!("byte {at}: {:?}", result.map(|store| store.size())),
        }
    }
    // Also where the file was torn behind it.
    let mut bytes = whole[..whole.len() - 2].to_vec();
    bytes[frames[1] + 65] ^= 1;
    assert!(matches!(try_open(&Fake::with(bytes)), Err(StoreError::Damaged { .. })));
}

#[test]
fn damage_that_comes_while_the_file_is_open_is_told_at_the_read() {
    let fake = Fake::default();
    let store = open(&fake);
    put(&store, 1, "one");
    fake.does(&Done::Written(128, b"two".to_vec()));
    assert!(matches!(store.get(key(1)), Err(StoreError::Damaged { offset: 64, .. })));
}

#[test]
fn a_file_of_another_kind_is_left_alone() {
    let cache = Fake::default();
    drop(Store::open(cache.clone(), Path::new("answers"), FileKind::Cache, false, 100).unwrap());
    for fake in [cache, Fake::with(b"Dear diary".to_vec()), Fake::with(vec![0; 4096])] {
        let before = fake.contents();
        assert!(matches!(try_open(&fake), Err(StoreError::Foreign { .. })));
        assert_eq!(fake.contents(), before);
    }
}

/// A frame whose head is valid and claims four gigabytes, and an answer that holds a whole file.
#[test]
fn neither_a_huge_length_nor_a_file_inside_an_answer_misleads() {
    let fake = Fake::default();
    let store = open(&fake);
    put(&store, 1, "one");
    let inner = fake.contents();
    store.append(Kind::Answer, key(2), None, &inner).unwrap();
    let torn = fake.contents();
    let store = open(&Fake::with(torn[..torn.len() - 1].to_vec()));
    assert_eq!((store.size().entries, store.size().torn), (1, 64 + inner.len() as u64 - 1));

    let mut bytes = fake.contents();
    let start = frames(&bytes)[1];
    bytes[start + 4..start + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(open(&Fake::with(bytes)).size().entries, 1);
}

#[test]
fn erased_answers_are_missing_and_their_bytes_are_gone() {
    let fake = Fake::default();
    let store = open(&fake);
    put(&store, 1, "one");
    for answer in ["secret of Ada", "secret of Ada again"] {
        store.append(Kind::Answer, key(2), Some(tag(7)), answer.as_bytes()).unwrap();
    }
    store.append(Kind::Answer, key(3), Some(tag(8)), b"secret of Grace").unwrap();
    let length = fake.contents().len();
    assert_eq!(store.erase(tag(7)).unwrap(), 2);
    assert_eq!(store.erase(tag(7)).unwrap(), 0);
    store.append(Kind::Answer, key(4), Some(tag(7)), b"later").unwrap();
    for store in [&store, &open(&fake)] {
        assert_eq!(text(store, 2), None);
        assert_eq!([1, 3, 4].map(|n| text(store, n).is_some()), [true; 3]);
        assert_eq!((store.size().entries, store.size().erased), (3, 2));
    }
    assert_eq!(frames(&fake.contents())[4], length, "an erased frame keeps its length");
    assert!(!fake.contents().windows(13).any(|bytes| bytes == b"secret of Ada"));
}

#[test]
fn a_full_disk_is_told_and_the_part_that_was_written_is_cut_off() {
    let fake = Fake::default();
    let store = open(&fake);
    put(&store, 1, "one");
    let length = fake.contents().len();
    for room in 0..67 {
        fake.room(Some(length as u64 + room));
        assert!(matches!(store.append(Kind::Answer, key(2), None, b"two"), Err(StoreError::Full { .. })));
        assert_eq!(fake.contents().len(), length);
        assert_eq!(text(&store, 2), None);
    }
    fake.room(None);
    put(&store, 2, "two");
    assert_eq!(open(&fake).size().entries, 2);
}

/// What was written since the last sync may be on the medium in part, in any order.
fn after_power_loss(before: &[u8], done: &[Done], until: usize, mut chance: impl FnMut() -> bool) -> Fake {
    let fake = Fake::with(before.to_vec());
    let safe = done[..until].iter().rposition(|done| matches!(done, Done::Synced)).unwrap_or(0);
    done[..safe].iter().for_each(|done| fake.does(done));
    for done in &done[safe..until] {
        match done {
            Done::Written(offset, bytes) => {
                for (at, byte) in bytes.iter().enumerate().filter(|_| chance()) {
                    fake.does(&Done::Written(offset + at as u64, vec![*byte]));
                }
            }
            other => fake.does(other),
        }
    }
    fake
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A crash may come at any moment of an erasure: nothing else is lost, and opening finishes it.
    #[test]
    fn an_erasure_that_a_crash_cut_short_is_finished(
        until in 0_usize..40,
        chances in any::<[u64; 4]>(),
        one in 1..9_u32,
    ) {
        let fake = Fake::default();
        let store = open(&fake);
        put(&store, 1, "one");
        store.append(Kind::Answer, key(2), Some(tag(7)), b"secret of Ada").unwrap();
        put(&store, 3, "three");
        store.append(Kind::Answer, key(4), Some(tag(7)), b"secret of Ada as well").unwrap();
        put(&store, 5, "five");
        let before = fake.contents();
        fake.done();
        store.erase(tag(7)).unwrap();
        let done = fake.done();
        let until = until.min(done.len());
        let mut seed = chances[0] | 1;
        let fake = after_power_loss(&before, &done, until, || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % 9 < u64::from(one)
        });
        for _ in 0..2 {
            let store = open(&fake);
            prop_assert_eq!([1, 3, 5].map(|n| text(&store, n).is_some()), [true; 3]);
            let left = [2, 4].map(|n| text(&store, n).is_some());
            prop_assert!(left[0] == left[1], "an erasure is begun as a whole");
            let secret = fake.contents().windows(13).any(|bytes| bytes == b"secret of Ada");
            prop_assert_eq!(secret, left[0]);
            if until >= 2 {
                prop_assert!(!secret, "it had been said on the medium");
            }
        }
    }

    /// Any run of appends, erasures and openings is as that of a table.
    #[test]
    fn a_store_is_a_table(steps in prop::collection::vec((0..4_u8, 0..4_u8, 0..3_u8, 0..200_usize), 0..40)) {
        let fake = Fake::default();
        let mut store = open(&fake);
        let mut table: HashMap<u8, (u8, Vec<u8>)> = HashMap::new();
        for (at, (step, n, of, length)) in steps.into_iter().enumerate() {
            match step {
                0 | 1 => {
                    let answer = vec![u8::try_from(at).unwrap(); length];
                    store.append(Kind::Answer, key(n), (of > 0).then(|| tag(of)), &answer).unwrap();
                    table.insert(n, (of, answer));
                }
                2 if of > 0 => {
                    store.erase(tag(of)).unwrap();
                    table.retain(|_, (tag, _)| *tag != of);
                }
                _ => {
                    store = open(&fake);
                    prop_assert_eq!(store.size().torn, 0);
                }
            }
            for n in 0..4 {
                let found = store.get(key(n)).unwrap().map(|(bytes, _)| bytes);
                prop_assert_eq!(found.as_ref(), table.get(&n).map(|(_, answer)| answer));
            }
        }
    }

    /// Bytes from elsewhere open, or are refused; nothing panics.
    #[test]
    fn no_file_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 0..300_usize) {
        let fake = Fake::default();
        put(&open(&fake), 1, "one");
        let mut all = fake.contents();
        all.truncate(cut.max(HEAD));
        all.extend(&bytes);
        drop(try_open(&Fake::with(all)));
        drop(try_open(&Fake::with(bytes)));
    }
}
