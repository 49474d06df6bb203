//! How turns are appended, changed, deleted and replaced: what is checked, and the entries that are written.

use std::collections::HashMap;

use super::contents::{Contents, Slot, with_role};
use super::entry::{Appended, Entry, Says, StoredScope, Updated};
use super::error::MemoryError;
use super::inner::Inner;
use super::scope::Scope;
use super::times::{from_micros, later, to_micros};
use super::turn::{Change, NewTurn, Turn};
use crate::store::Metadata;
use crate::store::stored::{StoredMetadata, StoredVector};

impl Inner {
    pub(super) fn append(&self, turns: Vec<(Scope, NewTurn)>) -> Result<Vec<String>, MemoryError> {
        for (scope, turn) in &turns {
            scope.check()?;
            turn.check()?;
            self.check_vector(&turn.shown_id(), turn.vector.as_deref())?;
        }
        let turns = self.with_vectors(turns)?;
        let now = self.now();
        let mut writer = self.begin(now)?;
        let recorded = self.stamp();
        let (ids, fresh) = self.planned(&turns, recorded)?;
        let entries: Vec<Entry<'_>> = fresh
            .iter()
            .map(|&(at, place)| {
                let (scope, turn) = &turns[at];
                Entry::Append(self.appended(scope, &ids[at], place, turn, (now, recorded)))
            })
            .collect();
        self.write(&mut writer, &entries)?;
        Ok(ids)
    }

    /// The ids of turns, and those that are not there yet, by position, with their places.
    #[expect(clippy::type_complexity, reason = "two lists")]
    fn planned(
        &self,
        turns: &[(Scope, NewTurn)],
        recorded: i64,
    ) -> Result<(Vec<String>, Vec<(usize, u64)>), MemoryError> {
        let contents = self.reading()?;
        let mut ids = Vec::with_capacity(turns.len());
        let mut fresh = Vec::new();
        let mut here: HashMap<(&Scope, &str), &NewTurn> = HashMap::new();
        let mut place = contents.next_place();
        for (at, (scope, turn)) in turns.iter().enumerate() {
            let id = turn.id.clone().unwrap_or_else(|| format!("{recorded:x}-{place}"));
            let other = || MemoryError::OtherText { scope: scope.clone(), id: id.clone() };
            if let Some(slot) = contents.find(scope, &id).map(|slot| contents.slot(slot)) {
                if !is_same(slot, turn) {
                    return Err(other());
                }
            } else {
                let earlier = turn.id.as_deref().and_then(|id| here.insert((scope, id), turn));
                match earlier {
                    Some(earlier) if (&earlier.role, &earlier.text) != (&turn.role, &turn.text) => return Err(other()),
                    Some(_) => {}
                    None => {
                        fresh.push((at, place));
                        place += 1;
                    }
                }
            }
            ids.push(id);
        }
        if contents.len() + fresh.len() > self.max_turns {
            return Err(MemoryError::Full { max_turns: self.max_turns });
        }
        Ok((ids, fresh))
    }

    pub(super) fn appended<'a>(
        &self,
        scope: &'a Scope,
        id: &'a str,
        place: u64,
        turn: &'a NewTurn,
        (now, recorded): (i64, i64),
    ) -> Appended<'a> {
        Appended {
            scope: StoredScope::of(scope),
            id,
            place,
            role: &turn.role,
            said: turn.said.map_or(now, to_micros),
            expires: turn.ttl.or(self.ttl).map(|ttl| later(now, ttl)),
            says: Says {
                recorded,
                text: Some(&turn.text),
                importance: turn.importance,
                metadata: StoredMetadata::of(&turn.metadata),
                vector: turn.vector.as_deref().map(StoredVector::of),
            },
        }
    }

    pub(super) fn update(&self, scope: &Scope, id: &str, change: Change) -> Result<(), MemoryError> {
        scope.check()?;
        change.check(id)?;
        self.check_vector(id, change.vector.as_deref())?;
        let unknown = || MemoryError::UnknownTurn { scope: scope.clone(), id: id.to_owned() };
        let role = {
            let contents = self.reading()?;
            contents.slot(contents.find(scope, id).ok_or_else(unknown)?).role.clone()
        };
        let vector = match (&change.text, change.vector) {
            (Some(text), None) => self.embed(&[with_role(&role, text)])?.map(|mut vectors| vectors.remove(0)),
            (_, vector) => vector,
        };
        let mut writer = self.begin(self.now())?;
        let contents = self.reading()?;
        let slot = contents.slot(contents.find(scope, id).ok_or_else(unknown)?);
        let state = slot.latest();
        let before = state.text.clone().ok_or_else(unknown)?;
        let before_vector = slot.row.and_then(|row| contents.live.vector(row));
        let metadata = change.metadata.unwrap_or_else(|| state.metadata.clone());
        let importance = change.importance.unwrap_or(state.importance);
        drop(contents);
        // A text without a vector of its own has none.
        let vector = if change.text.is_some() { vector } else { vector.or(before_vector) };
        let says = Says {
            recorded: self.stamp(),
            text: Some(change.text.as_deref().unwrap_or(&before)),
            importance,
            metadata: StoredMetadata::of(&metadata),
            vector: vector.as_deref().map(StoredVector::of),
        };
        self.write(&mut writer, &[Entry::Update(Updated { scope: StoredScope::of(scope), id, says })])
    }

    pub(super) fn delete(&self, scope: &Scope, id: &str) -> Result<(), MemoryError> {
        scope.check()?;
        let mut writer = self.begin(self.now())?;
        let is_there = {
            let contents = self.reading()?;
            contents.find(scope, id).is_some_and(|slot| contents.slot(slot).row.is_some())
        };
        if !is_there {
            return Err(MemoryError::UnknownTurn { scope: scope.clone(), id: id.to_owned() });
        }
        let nothing = Metadata::new();
        let says = Says {
            recorded: self.stamp(),
            text: None,
            importance: 0.0,
            metadata: StoredMetadata::of(&nothing),
            vector: None,
        };
        self.write(&mut writer, &[Entry::Update(Updated { scope: StoredScope::of(scope), id, says })])
    }

    /// Puts a summary in the place of turns, if all of them are as they were.
    pub(super) fn replace(&self, scope: &Scope, old: &[Turn], summary: NewTurn) -> Result<Option<Turn>, MemoryError> {
        let summaries = vec![(scope.clone(), summary)];
        summaries[0].1.check()?;
        let summaries = self.with_vectors(summaries)?;
        let mut writer = self.begin(self.now())?;
        let recorded = self.stamp();
        let place = {
            let contents = self.reading()?;
            let is_as_it_was = |turn: &&Turn| {
                let slot = contents.find(scope, &turn.id).map(|slot| contents.slot(slot));
                slot.filter(|slot| from_micros(slot.latest().recorded) == turn.recorded).map(|slot| slot.place)
            };
            let places: Option<Vec<u64>> = old.iter().map(|turn| is_as_it_was(&turn)).collect();
            let changed = || MemoryError::Changed { scope: scope.clone() };
            places.and_then(|places| places.last().copied()).ok_or_else(changed)?
        };
        let id = format!("{recorded:x}-summary");
        let ids = old.iter().map(|turn| &*turn.id).collect();
        let appended = self.appended(scope, &id, place, &summaries[0].1, (recorded, recorded));
        self.write(&mut writer, &[Entry::Replace(ids, appended)])?;
        self.tidy_words();
        self.clear(&mut writer)?;
        let contents = self.reading()?;
        let slot = contents.slot(contents.find(scope, &id).expect("it was just written"));
        Ok(Some(contents.turn(slot, slot.latest())))
    }

    /// Writes the entries of turns that were exported, from a place on, and says how many turns.
    pub(super) fn import<'a>(
        &self,
        turns: usize,
        entries: impl FnOnce(&Contents, u64) -> Result<Vec<Entry<'a>>, MemoryError>,
    ) -> Result<usize, MemoryError> {
        let mut writer = self.begin(self.now())?;
        // Imported turns were said earlier than those that have expired, whose ids they may have.
        self.clear(&mut writer)?;
        let entries = {
            let contents = self.reading()?;
            if contents.len() + turns > self.max_turns {
                return Err(MemoryError::Full { max_turns: self.max_turns });
            }
            entries(&contents, contents.next_place())?
        };
        self.write(&mut writer, &entries)?;
        self.tell(self.reading()?.recorded());
        Ok(entries.iter().filter(|entry| matches!(entry, Entry::Append(_))).count())
    }
}

/// Whether a turn is what was appended under its id, whatever became of it since.
fn is_same(slot: &Slot, turn: &NewTurn) -> bool {
    let first = slot.states.first().and_then(|state| state.text.as_deref());
    *slot.role == *turn.role && first == Some(&*turn.text)
}
