//! Erasure: [`Receipt`], and what puts a summary in the place of turns.

use std::collections::BTreeSet;
use std::fmt;

use sage::BoxError;

use super::contents::{Contents, View};
use super::entry::{Entry, StoredScope};
use super::error::MemoryError;
use super::memory::Memory;
use super::scope::Scope;
use super::turn::{NewTurn, Turn, check_id};

/// What was erased, and what an erasure cannot reach.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// What was to be erased.
    pub scope: Scope,
    /// The turn that was to be erased, if it was one.
    pub id: Option<String>,
    /// Turns that are gone.
    pub turns: usize,
    /// Their versions, with those that said that they were deleted.
    pub versions: usize,
    /// Bytes of the file that are zeros now.
    pub bytes: u64,
    /// Answers of other services that are gone, as far as they were asked for by their [tags](Scope::tag).
    pub answers: u64,
    /// The tags of answers that are about what was erased.
    pub tags: Vec<String>,
}

impl Receipt {
    /// What may still have some of it, and an erasure cannot reach.
    pub const OUT_OF_REACH: [&str; 4] = [
        "files that were exported, and copies of the memory's file",
        "dead letters, logs and outputs of jobs that have read it",
        "services that were told of it and whose answers have no tag",
        "free memory of this process, and free blocks of the file system, until they are used again",
    ];

    /// A receipt of nothing.
    pub fn new(scope: Scope) -> Self {
        Self { scope, id: None, turns: 0, versions: 0, bytes: 0, answers: 0, tags: Vec::new() }
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scope, id, turns, versions, bytes, answers, .. } = self;
        match id {
            Some(id) => write!(f, "erased of {scope}, turn {id:?}: ")?,
            None => write!(f, "erased of {scope}: ")?,
        }
        writeln!(f, "{turns} turns in {versions} versions, {bytes} bytes of the file, {answers} answers of services")?;
        writeln!(f, "out of reach:")?;
        Self::OUT_OF_REACH.iter().try_for_each(|what| writeln!(f, "- {what}"))
    }
}

impl Memory {
    /// Erases all turns of a scope, with their histories: texts, vectors, words, and every byte of them in the file,
    /// which becomes zeros. When it returns, that is on the disk. If the process is killed half-way, the next one that
    /// opens the memory finishes it before it reads anything; so it does if this fails once it is begun. A scope
    /// without turns gives a receipt of nothing.
    ///
    /// # Errors
    /// [`MemoryError::NotOpen`], [`MemoryError::BadScope`], [`MemoryError::File`].
    pub fn erase(&self, scope: &Scope) -> Result<Receipt, MemoryError> {
        self.erase_with(scope, |_| Ok(0))
    }

    /// Erases all turns of a scope, and before them the answers of services that are about it. `answers` erases those
    /// with a [tag](Scope::tag), such as by [`Method::erase`](sage::Method), and says how many there were.
    ///
    /// # Errors
    /// As those of [`erase`](Self::erase), and [`MemoryError::AnswersLeft`].
    pub fn erase_with(
        &self,
        scope: &Scope,
        answers: impl FnMut(&str) -> Result<u64, BoxError>,
    ) -> Result<Receipt, MemoryError> {
        self.erased(scope, None, answers)
    }

    /// Erases a turn with its history, as [`erase`](Self::erase) does. Answers of services that are about its scope
    /// stay.
    ///
    /// # Errors
    /// As those of [`erase`](Self::erase), and [`MemoryError::UnknownTurn`].
    pub fn erase_turn(&self, scope: &Scope, id: &str) -> Result<Receipt, MemoryError> {
        check_id(id)?;
        self.erased(scope, Some(id), |_| Ok(0))
    }

    fn erased(
        &self,
        scope: &Scope,
        id: Option<&str>,
        mut answers: impl FnMut(&str) -> Result<u64, BoxError>,
    ) -> Result<Receipt, MemoryError> {
        scope.check()?;
        let mut done = BTreeSet::new();
        let mut erased_answers = 0;
        loop {
            // A session may begin while the answers of others are erased: then its answers are erased, too.
            let mut writer = self.inner.begin(self.inner.now())?;
            let contents = self.inner.reading()?;
            let tags = if id.is_none() { tags(&contents, scope) } else { BTreeSet::new() };
            let left: Vec<String> = tags.difference(&done).cloned().collect();
            if !left.is_empty() {
                drop(contents);
                drop(writer);
                for tag in left {
                    let erased = answers(&tag);
                    erased_answers += erased.map_err(|source| MemoryError::AnswersLeft { tag: tag.clone(), source })?;
                    done.insert(tag);
                }
                continue;
            }
            let slots = match id {
                None => contents.slots_in(scope),
                Some(id) => {
                    let unknown = || MemoryError::UnknownTurn { scope: scope.clone(), id: id.to_owned() };
                    vec![contents.find(scope, id).ok_or_else(unknown)?]
                }
            };
            let versions = slots.iter().map(|slot| contents.slot(*slot).states.len()).sum();
            drop(contents);
            let bytes = if slots.is_empty() {
                0
            } else {
                let entry = Entry::Erase(StoredScope::of(scope), id);
                self.inner.erase(&mut writer, &[entry])?
            };
            return Ok(Receipt {
                scope: scope.clone(),
                id: id.map(str::to_owned),
                turns: slots.len(),
                versions,
                bytes,
                answers: erased_answers,
                tags: done.into_iter().collect(),
            });
        }
    }

    /// Puts one turn in the place of all turns of exactly this scope but the latest `keep`: `summarise` makes it of
    /// them. What stood there is erased. The summary has the role `summary`, and the time of the last turn that it
    /// stands for. Returns it, and `None` where there is nothing to summarise. Nothing is locked meanwhile.
    ///
    /// `summarise` may ask a service, as by [`Method::call_blocking`](sage::Method).
    ///
    /// # Errors
    /// [`MemoryError::NoSummary`]; [`MemoryError::Changed`] if one of the turns was changed meanwhile; others as those
    /// of [`append`](Self::append). Nothing is changed then.
    pub fn compact(
        &self,
        scope: &Scope,
        keep: usize,
        summarise: impl FnOnce(&[Turn]) -> Result<String, BoxError>,
    ) -> Result<Option<Turn>, MemoryError> {
        scope.check()?;
        let old = self.inner.read(|contents, now| old(contents, scope, keep, now))?;
        let Some(last) = old.last().cloned() else { return Ok(None) };
        let importance = old.iter().map(|turn| turn.importance).fold(0.0, f32::max);
        let text = summarise(&old).map_err(MemoryError::NoSummary)?;
        let summary = NewTurn::new("summary", text).said(last.said).importance(importance);
        self.inner.replace(scope, &old, summary)
    }

    /// Erases all turns of exactly this scope but the latest `keep`, and says how many.
    ///
    /// # Errors
    /// As those of [`erase`](Self::erase).
    pub fn keep_latest(&self, scope: &Scope, keep: usize) -> Result<usize, MemoryError> {
        scope.check()?;
        let now = self.inner.now();
        let mut writer = self.inner.begin(now)?;
        let old = old(&*self.inner.reading()?, scope, keep, now);
        if !old.is_empty() {
            // At once: each erasure waits for the disk.
            let entries = old.iter().map(|turn| Entry::Erase(StoredScope::of(scope), Some(&turn.id)));
            self.inner.erase(&mut writer, &entries.collect::<Vec<_>>())?;
        }
        Ok(old.len())
    }
}

/// The turns of exactly this scope but the latest, oldest first.
fn old(contents: &Contents, scope: &Scope, keep: usize, now: i64) -> Vec<Turn> {
    let view = View { now, at: None };
    let leaf = contents.leaf_of(scope);
    let slots = leaf.into_iter().flat_map(|leaf| contents.order(leaf).values()).map(|slot| contents.slot(*slot));
    let mut turns: Vec<Turn> = slots.filter_map(|slot| Some(contents.turn(slot, view.of(slot)?))).collect();
    turns.truncate(turns.len().saturating_sub(keep));
    turns
}

/// The tags of answers that are about a scope.
fn tags(contents: &Contents, scope: &Scope) -> BTreeSet<String> {
    let within = contents.leaves_in(scope).into_iter().map(|leaf| contents.scope(leaf).tag());
    within.chain([scope.tag()]).collect()
}
