//! [`Contents`]: all turns of a memory, with their histories.
//!
//! Each turn lies in the *leaf* of exactly its scope. A wider scope is the leaves that it contains.
//!
//! Invariants:
//! 1. `leaf_of` leads to each of `leaves`; `leaves_with` leads to those that have a name in common. A leaf without
//!    turns does not exist.
//! 2. A slot is in `ids` and `order` of its leaf, until it is removed; `live` has a row for it unless its latest
//!    version is deleted.
//! 3. Places of turns are unique, and so is the order in which turns are shown.
//!
//! Knows nothing of files, locks and clocks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::entry::{Appended, Entry, Says, Updated};
use super::live::Live;
use super::scope::Scope;
use super::times::from_micros;
use super::turn::{Turn, Version};
use crate::store::Metadata;
use crate::store::postings::Postings;
use crate::store::rows::Rows;

#[derive(Debug)]
pub(super) struct Contents {
    leaves: Vec<Option<Leaf>>,
    free_leaves: Vec<u32>,
    leaf_of: HashMap<Scope, u32>,
    /// By tenant, and by the number and name of a part within it.
    leaves_with: HashMap<(Arc<str>, Option<(usize, Arc<str>)>), BTreeSet<u32>>,
    slots: Vec<Option<Slot>>,
    free_slots: Vec<u32>,
    pub(super) live: Live,
    /// By when they expire.
    expiring: BTreeSet<(i64, u32)>,
    /// Behind the place of every turn that was ever there.
    next_place: u64,
    /// The latest moment at which anything was recorded.
    recorded: i64,
    /// How long the frames of all versions are.
    bytes: u64,
}

/// The turns of exactly one scope.
#[derive(Debug)]
struct Leaf {
    scope: Scope,
    ids: HashMap<Arc<str>, u32>,
    /// By their places.
    order: BTreeMap<u64, u32>,
}

/// A turn.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) leaf: u32,
    pub(super) id: Arc<str>,
    pub(super) place: u64,
    pub(super) role: Box<str>,
    pub(super) said: i64,
    pub(super) expires: Option<i64>,
    /// Oldest first, at least one.
    pub(super) states: Vec<State>,
    /// Where `live` has it.
    pub(super) row: Option<u32>,
}

/// A version of a turn.
#[derive(Debug)]
pub(super) struct State {
    pub(super) recorded: i64,
    pub(super) text: Option<Arc<str>>,
    pub(super) importance: f32,
    pub(super) metadata: Metadata,
    /// The vector of a version that is not the latest: that of the latest lies in `live`.
    pub(super) vector: Option<Vec<f32>>,
    /// Where its frame begins, and how long it is.
    pub(super) frame: (u64, u32),
}

impl Slot {
    pub(super) fn latest(&self) -> &State {
        self.states.last().expect("a slot has a version")
    }

    /// What it was at a moment; `None` before it was appended and from when it was deleted.
    pub(super) fn state_at(&self, moment: i64) -> Option<&State> {
        self.states.iter().rev().find(|state| state.recorded <= moment).filter(|state| state.text.is_some())
    }

    /// What of a version is searched for words.
    pub(super) fn searched(&self, state: &State) -> String {
        let text = state.text.as_deref().unwrap_or_default();
        with_role(&self.role, text)
    }

    pub(super) fn is_expired(&self, now: i64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// Which turns a query is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    /// Turns that expired by then are not there.
    pub(super) now: i64,
    /// The moment whose versions are seen; the latest unless set.
    pub(super) at: Option<i64>,
}

impl View {
    /// The version that is seen of a turn.
    pub(super) fn of<'a>(&self, slot: &'a Slot) -> Option<&'a State> {
        if slot.is_expired(self.now) {
            return None;
        }
        match self.at {
            Some(at) => slot.state_at(at),
            None => Some(slot.latest()).filter(|state| state.text.is_some()),
        }
    }
}

impl Contents {
    pub(super) fn new(dimensions: usize) -> Self {
        Self {
            leaves: Vec::new(),
            free_leaves: Vec::new(),
            leaf_of: HashMap::new(),
            leaves_with: HashMap::new(),
            slots: Vec::new(),
            free_slots: Vec::new(),
            live: Live::new(dimensions),
            expiring: BTreeSet::new(),
            next_place: 0,
            recorded: i64::MIN,
            bytes: 0,
        }
    }

    /// How many turns there are, with those that were deleted.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free_slots.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn next_place(&self) -> u64 {
        self.next_place
    }

    pub(super) fn recorded(&self) -> i64 {
        self.recorded
    }

    /// When the next turn expires.
    pub(super) fn next_to_expire(&self) -> Option<i64> {
        self.expiring.first().map(|(expires, _)| *expires)
    }

    /// The turns that have expired.
    pub(super) fn expired(&self, now: i64) -> Vec<u32> {
        self.expiring.iter().take_while(|(expires, _)| *expires <= now).map(|(_, slot)| *slot).collect()
    }

    pub(super) fn slot(&self, slot: u32) -> &Slot {
        self.slots[slot as usize].as_ref().expect("it is led to, so it is there")
    }

    /// The turn with this id in exactly this scope, deleted or not.
    pub(super) fn find(&self, scope: &Scope, id: &str) -> Option<u32> {
        self.leaf(*self.leaf_of.get(scope)?).ids.get(id).copied()
    }

    pub(super) fn leaf_of(&self, scope: &Scope) -> Option<u32> {
        self.leaf_of.get(scope).copied()
    }

    fn leaf(&self, leaf: u32) -> &Leaf {
        self.leaves[leaf as usize].as_ref().expect("it is led to, so it is there")
    }

    /// The leaves that a scope contains.
    pub(super) fn leaves_in(&self, scope: &Scope) -> Vec<u32> {
        let named = scope.within().iter().enumerate().filter_map(|(part, name)| Some((part, name.clone()?)));
        let lists =
            named.map(Some).chain([None]).map(|with| self.leaves_with.get(&(Arc::clone(scope.tenant_arc()), with)));
        // The shortest of them has all others' common leaves in it; one that is not there has none.
        let shortest = lists.min_by_key(|list| list.map_or(0, BTreeSet::len)).flatten();
        let leaves = shortest.into_iter().flatten().copied();
        leaves.filter(|leaf| scope.contains(&self.leaf(*leaf).scope)).collect()
    }

    /// The turns of a leaf, oldest first.
    pub(super) fn order(&self, leaf: u32) -> &BTreeMap<u64, u32> {
        &self.leaf(leaf).order
    }

    pub(super) fn scope(&self, leaf: u32) -> &Scope {
        &self.leaf(leaf).scope
    }

    /// All turns of a scope, deleted ones too, in the order of their places.
    pub(super) fn slots_in(&self, scope: &Scope) -> Vec<u32> {
        let leaves = self.leaves_in(scope);
        let mut slots: Vec<(u64, u32)> =
            leaves.iter().flat_map(|leaf| self.order(*leaf)).map(|(p, s)| (*p, *s)).collect();
        slots.sort_unstable();
        slots.into_iter().map(|(_, slot)| slot).collect()
    }

    pub(super) fn turn(&self, slot: &Slot, state: &State) -> Turn {
        Turn {
            scope: self.scope(slot.leaf).clone(),
            id: slot.id.to_string(),
            role: slot.role.to_string(),
            text: state.text.as_deref().unwrap_or_default().to_owned(),
            said: from_micros(slot.said),
            recorded: from_micros(state.recorded),
            expires: slot.expires.map(from_micros),
            importance: state.importance,
            metadata: state.metadata.clone(),
        }
    }

    /// Does what a frame says; says where the frames of turns are that are erased by it, the latest of each turn first,
    /// and `None` if it fits nothing that was said before.
    pub(super) fn apply(&mut self, entry: &Entry<'_>, frame: (u64, u32)) -> Option<Vec<u64>> {
        match entry {
            Entry::Append(appended) => {
                self.append(appended, frame)?;
                Some(Vec::new())
            }
            Entry::Update(updated) => {
                self.update(updated, frame)?;
                Some(Vec::new())
            }
            Entry::Erase(scope, None) => {
                let erased = self.slots_in(&scope.scope());
                Some(self.remove(&erased))
            }
            Entry::Erase(scope, Some(id)) => {
                let erased: Vec<u32> = self.find(&scope.scope(), id).into_iter().collect();
                Some(self.remove(&erased))
            }
            Entry::Replace(ids, with) => {
                let scope = with.scope.scope();
                let replaced: Vec<u32> = ids.iter().filter_map(|id| self.find(&scope, id)).collect();
                let offsets = self.remove(&replaced);
                self.append(with, frame)?;
                Some(offsets)
            }
        }
    }

    fn append(&mut self, appended: &Appended<'_>, frame: (u64, u32)) -> Option<()> {
        let Appended { scope, id, place, role, said, expires, says } = appended;
        let scope = scope.scope();
        let vector = self.live.vector_of(says)?;
        let state = self.state(says, frame)?;
        let leaf = self.leaf_of.get(&scope).copied().unwrap_or_else(|| self.add_leaf(scope));
        let id: Arc<str> = (*id).into();
        let at = self.free_slots.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("the most turns fit 32 bits")
        });
        let into = self.leaves[leaf as usize].as_mut().expect("it is there");
        if into.ids.contains_key(&id) || into.order.contains_key(place) {
            self.free_slots.push(at);
            return None;
        }
        into.ids.insert(Arc::clone(&id), at);
        into.order.insert(*place, at);
        let text = state.text.as_deref();
        let row = text.map(|text| self.live.push(at, leaf, *place, *expires, &with_role(role, text), vector));
        self.expiring.extend(expires.map(|expires| (expires, at)));
        self.next_place = self.next_place.max(place + 1);
        let (place, role, said, expires) = (*place, (*role).into(), *said, *expires);
        self.slots[at as usize] = Some(Slot { leaf, id, place, role, said, expires, states: vec![state], row });
        Some(())
    }

    fn update(&mut self, updated: &Updated<'_>, frame: (u64, u32)) -> Option<()> {
        let Updated { scope, id, says } = updated;
        let at = self.find(&scope.scope(), id)?;
        let vector = self.live.vector_of(says)?;
        let state = self.state(says, frame)?;
        let Self { slots, live, .. } = self;
        let slot = slots[at as usize].as_mut().expect("it was found");
        let before = slot.states.last_mut().expect("a slot has a version");
        before.vector = slot.row.and_then(|row| live.vector(row));
        match (slot.row, &state.text) {
            (Some(row), Some(text)) => live.overwrite(row, &with_role(&slot.role, text), vector),
            (Some(row), None) => {
                slot.row = None;
                slot.states.push(state);
                self.remove_row(row);
                return Some(());
            }
            // What was deleted stays so.
            (None, _) => return None,
        }
        slot.states.push(state);
        Some(())
    }

    fn remove_row(&mut self, row: u32) {
        if let Some(moved) = self.live.swap_remove(row) {
            self.slots[moved as usize].as_mut().expect("a row leads to a slot").row = Some(row);
        }
    }

    fn state(&mut self, says: &Says<'_>, frame: (u64, u32)) -> Option<State> {
        let Says { recorded, text, importance, metadata, .. } = says;
        self.recorded = self.recorded.max(*recorded);
        self.bytes += u64::from(frame.1);
        let (text, metadata) = (text.map(Into::into), metadata.metadata()?);
        Some(State { recorded: *recorded, text, importance: *importance, metadata, vector: None, frame })
    }

    fn add_leaf(&mut self, scope: Scope) -> u32 {
        let leaf = self.free_leaves.pop().unwrap_or_else(|| {
            self.leaves.push(None);
            u32::try_from(self.leaves.len() - 1).expect("there are no more leaves than turns")
        });
        for name in names_of(&scope) {
            self.leaves_with.entry(name).or_default().insert(leaf);
        }
        self.leaf_of.insert(scope.clone(), leaf);
        self.leaves[leaf as usize] = Some(Leaf { scope, ids: HashMap::new(), order: BTreeMap::new() });
        leaf
    }

    /// Removes turns with their histories, and says where their frames are, the latest of each turn first.
    pub(super) fn remove(&mut self, slots: &[u32]) -> Vec<u64> {
        let mut offsets = Vec::new();
        for &at in slots {
            let Some(slot) = self.slots[at as usize].take() else { continue };
            self.free_slots.push(at);
            if let Some(row) = slot.row {
                self.remove_row(row);
            }
            if let Some(expires) = slot.expires {
                self.expiring.remove(&(expires, at));
            }
            for state in slot.states.iter().rev() {
                self.bytes -= u64::from(state.frame.1);
                offsets.push(state.frame.0);
            }
            let leaf = self.leaves[slot.leaf as usize].as_mut().expect("a slot lies in a leaf");
            leaf.ids.remove(&slot.id);
            leaf.order.remove(&slot.place);
            if leaf.ids.is_empty() {
                self.remove_leaf(slot.leaf);
            }
        }
        offsets
    }

    fn remove_leaf(&mut self, leaf: u32) {
        let Some(Leaf { scope, .. }) = self.leaves[leaf as usize].take() else { return };
        self.free_leaves.push(leaf);
        self.leaf_of.remove(&scope);
        for name in names_of(&scope) {
            if let Some(leaves) = self.leaves_with.get_mut(&name) {
                leaves.remove(&leaf);
                if leaves.is_empty() {
                    self.leaves_with.remove(&name);
                }
            }
        }
    }

    /// Where the frames of all versions begin, in the order of the file.
    pub(super) fn offsets(&self) -> Vec<u64> {
        let states = self.slots.iter().flatten().flat_map(|slot| &slot.states);
        let mut offsets: Vec<u64> = states.map(|state| state.frame.0).collect();
        offsets.sort_unstable();
        offsets
    }

    /// Says where they begin now that the file was written anew: `before` are [`offsets`](Self::offsets).
    pub(super) fn move_frames(&mut self, before: &[u64], now: &[u64]) {
        for state in self.slots.iter_mut().flatten().flat_map(|slot| &mut slot.states) {
            let at = before.binary_search(&state.frame.0).expect("all of them are there");
            state.frame.0 = now[at];
        }
    }

    /// The rows of these leaves that have not expired.
    pub(super) fn rows_in(&self, leaves: &[u32], now: i64) -> Rows {
        let turns: usize = leaves.iter().map(|leaf| self.order(*leaf).len()).sum();
        if turns > self.live.len() / 16 {
            return self.live.rows_in(leaves, now);
        }
        let mut rows = Rows::none(self.live.len());
        for slot in leaves.iter().flat_map(|leaf| self.order(*leaf).values()).map(|slot| self.slot(*slot)) {
            slot.row.filter(|_| !slot.is_expired(now)).into_iter().for_each(|row| rows.insert(row));
        }
        rows
    }

    /// The lists of words of the latest versions.
    pub(super) fn postings(&self) -> &Postings {
        self.live.postings(|slot| {
            let slot = self.slot(slot);
            slot.searched(slot.latest())
        })
    }

    pub(super) fn versions(&self, slot: &Slot) -> Vec<Version> {
        let version = |state: &State| Version {
            recorded: from_micros(state.recorded),
            text: state.text.as_deref().map(str::to_owned),
            importance: state.importance,
            metadata: state.metadata.clone(),
        };
        slot.states.iter().map(version).collect()
    }
}

/// What is searched for words, and embedded: the role is often a name.
pub(super) fn with_role(role: &str, text: &str) -> String {
    format!("{role}: {text}")
}

/// What leads to a leaf: its tenant, and each name within that.
fn names_of(scope: &Scope) -> impl Iterator<Item = (Arc<str>, Option<(usize, Arc<str>)>)> + use<> {
    let tenant = Arc::clone(scope.tenant_arc());
    let within = scope.within().clone().into_iter().enumerate().filter_map(|(part, name)| Some((part, name?)));
    [None].into_iter().chain(within.map(Some)).map(move |with| (Arc::clone(&tenant), with))
}
