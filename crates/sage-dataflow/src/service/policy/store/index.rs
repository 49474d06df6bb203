//! Where each answer stands in its file.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::super::key::{CallKey, TagKey};
use super::format::{Head, Kind};

/// Where a frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) body: u32,
}

/// An answer in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) written_at: u64,
    tag: Option<TagKey>,
}

/// What stands in the file, as its frames in their order say.
#[derive(Default)]
pub(super) struct Index {
    pub(super) answers: HashMap<CallKey, Entry, RandomState>,
    /// Answers that a later one of the same call has replaced.
    replaced: HashMap<CallKey, Vec<Entry>, RandomState>,
    /// Every answer with a tag, those that are replaced as well.
    tags: HashMap<TagKey, Vec<(CallKey, Entry)>, RandomState>,
    /// The calls that went out, and have not ended.
    pub(super) begun: HashSet<CallKey, RandomState>,
    pub(super) erased: u64,
}

impl Index {
    /// Takes note of a frame.
    pub(super) fn note(&mut self, offset: u64, head: &Head) {
        let Head { kind, body, written_at, key, tag, .. } = *head;
        match kind {
            Kind::Answer => {
                self.begun.remove(&key);
                let entry = Entry { place: Place { offset, body }, written_at, tag };
                if let Some(before) = self.answers.insert(key, entry) {
                    self.replaced.entry(key).or_default().push(before);
                }
                if let Some(tag) = tag {
                    self.tags.entry(tag).or_default().push((key, entry));
                }
            }
            Kind::Begun => {
                self.begun.insert(key);
            }
            Kind::Ended => {
                self.begun.remove(&key);
            }
            Kind::Erased => self.erased += 1,
            // Counts when what it names is erased.
            Kind::Erase => {}
        }
    }

    /// The answers of a tag. With the one that a call has now go those that it has replaced: they would be the call's
    /// answers otherwise.
    pub(super) fn tagged(&self, tag: TagKey) -> Vec<(CallKey, Entry)> {
        let mut found = self.tags.get(&tag).cloned().unwrap_or_default();
        let older = found
            .iter()
            .filter(|(key, entry)| self.answers.get(key) == Some(entry))
            .flat_map(|(key, _)| self.replaced.get(key).into_iter().flatten().map(|entry| (*key, *entry)))
            .filter(|(_, entry)| entry.tag != Some(tag));
        let older: Vec<_> = older.collect();
        found.extend(older);
        found
    }

    /// The answers that stand at these places.
    pub(super) fn at(&self, places: &HashSet<u64>) -> Vec<(CallKey, Entry)> {
        let now = self.answers.iter().map(|(key, entry)| (*key, *entry));
        let older = self.replaced.iter().flat_map(|(key, older)| older.iter().map(|entry| (*key, *entry)));
        now.chain(older).filter(|(_, entry)| places.contains(&entry.place.offset)).collect()
    }

    /// Forgets answers, which are erased.
    pub(super) fn forget(&mut self, answers: &[(CallKey, Entry)]) {
        let places: HashSet<u64> = answers.iter().map(|(_, entry)| entry.place.offset).collect();
        let is_left = |entry: &Entry| !places.contains(&entry.place.offset);
        for (key, entry) in answers {
            if self.answers.get(key) == Some(entry) {
                self.answers.remove(key);
            }
            if let Some(older) = self.replaced.get_mut(key) {
                older.retain(is_left);
                if older.is_empty() {
                    self.replaced.remove(key);
                }
            }
        }
        let tags: HashSet<TagKey> = answers.iter().filter_map(|(_, entry)| entry.tag).collect();
        for tag in tags {
            if let Some(of_tag) = self.tags.get_mut(&tag) {
                of_tag.retain(|(_, entry)| is_left(entry));
                if of_tag.is_empty() {
                    self.tags.remove(&tag);
                }
            }
        }
        self.erased += answers.len() as u64;
    }
}
