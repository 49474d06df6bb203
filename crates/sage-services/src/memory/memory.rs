//! [`Memory`]: turns that are remembered, in memory or in a file.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use sage::{BoxError, HookContext, Service};

use super::alarm::Alarm;
use super::contents::{Contents, View};
use super::error::MemoryError;
use super::inner::Inner;
use super::recall::{Recall, Recalled};
use super::scope::Scope;
use super::times::{from_micros, to_micros};
use super::turn::{Change, NewTurn, Turn, Version};
use super::window::{self, Window};
use crate::embed::{Embedder, EmbedderId};

/// A service that remembers the turns of conversations, and recalls those that matter.
///
/// Turns are appended under a [`Scope`], read back as a [`Window`] of the latest, and [recalled](Recall) by words, by
/// meaning where an [`Embedder`] is given, by how recent and how important they are. No language model is asked.
/// Versions of turns that were updated or deleted stay readable until they are erased; a turn with a time to live is
/// not seen any more from the moment on at which that has passed, and is erased within a tenth of a second.
///
/// A file survives a `kill -9` with all that was acknowledged, and with [`synced`](Self::synced) a loss of power. One
/// process at a time has it open. All turns are in memory: 100,000 with vectors of 384 numbers take about 250 MB.
///
/// ```
/// use sage_services::memory::{Memory, NewTurn, Recall, Scope};
///
/// # fn main() -> Result<(), sage_services::memory::MemoryError> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("memory.sage");
/// let memory = Memory::at(path);
/// memory.open()?;
/// let session = Scope::tenant("acme").user("u1").session("monday");
/// let turns = vec![NewTurn::user("I moved to Basel in May."), NewTurn::assistant("How do you like it?")];
/// memory.append(&session, turns)?;
/// let user = Scope::tenant("acme").user("u1");
/// let recalled = memory.recall(&user, Recall::new("When did I move?").k(1))?;
/// assert_eq!(recalled[0].turn.text, "I moved to Basel in May.");
/// assert_eq!(memory.window(&session, 2)?.len(), 2);
/// let receipt = memory.erase(&user)?;
/// assert_eq!(receipt.turns, 2);
/// memory.close();
/// # Ok(())
/// # }
/// ```
///
/// In a job it is a [`Service`] like others, which the job opens and closes:
///
/// ```
/// use sage::{BoxError, Environment};
/// use sage_services::memory::{Memory, NewTurn, Scope};
///
/// # fn main() -> Result<(), BoxError> {
/// let env = Environment::local("remembering");
/// let memory = env.register_service("memory", Memory::in_memory).build();
/// env.from_iter(["Tea is hot.", "Ice is cold."])
///     .try_map(move |text| {
///         let scope = Scope::tenant("acme").session("s1");
///         memory.try_call(|memory| memory.append(&scope, vec![NewTurn::user(text)]))
///     })
///     .sink(|_ids| {});
/// env.run()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Memory {
    pub(super) inner: Arc<Inner>,
    alarm: Mutex<Option<Alarm>>,
}

impl Memory {
    /// Limit of [`max_turns`](Self::max_turns) unless set.
    pub const DEFAULT_MAX_TURNS: u32 = 1_000_000;

    /// A memory that is gone when it is closed.
    pub fn in_memory() -> Self {
        Self::new(None)
    }

    /// A memory in this file, which is made if it is not there, with the folders above it, for its owner only.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self::new(Some(path.into()))
    }

    fn new(path: Option<PathBuf>) -> Self {
        Self { inner: Arc::new(Inner::new(path)), alarm: Mutex::default() }
    }

    /// Has turns compared by meaning, too: this embedder makes their vectors when they are appended, and those of
    /// recalls. The memory starts and ends it.
    #[must_use]
    pub fn embedder(self, embedder: impl Embedder) -> Self {
        self.set(|inner| {
            inner.made_by = Some(embedder.id().clone());
            inner.embedder = Some(Box::new(embedder));
        })
    }

    /// Has turns compared by vectors that whoever appends and recalls brings, made by this embedder.
    #[must_use]
    pub fn vectors_made_by(self, embedder: EmbedderId) -> Self {
        self.set(|inner| inner.made_by = Some(embedder))
    }

    /// Each write survives a loss of power when it is acknowledged. It takes milliseconds more. An erasure always does.
    #[must_use]
    pub fn synced(self) -> Self {
        self.set(|inner| inner.synced = true)
    }

    /// Sets how many turns are taken, deleted ones included; 1,000,000 unless set. The memory it may take follows from
    /// it.
    #[must_use]
    pub fn max_turns(self, max_turns: u32) -> Self {
        self.set(|inner| inner.max_turns = max_turns as usize)
    }

    /// Sets how long turns are remembered that do not say so themselves; for ever unless set.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        self.set(|inner| inner.ttl = Some(ttl))
    }

    /// Sets what tells the time; the system does unless set. Where it goes back, the memory's time stands still until
    /// it is caught up with.
    #[must_use]
    pub fn clock(self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.set(|inner| inner.clock = Box::new(clock))
    }

    fn set(mut self, set: impl FnOnce(&mut Inner)) -> Self {
        set(Arc::get_mut(&mut self.inner).expect("a memory is set up before it is opened"));
        self
    }

    /// Opens it, and finishes what an earlier process had begun to erase. A memory that is open stays as it is. A job
    /// does this itself.
    ///
    /// # Errors
    /// [`MemoryError::Locked`], [`MemoryError::Damaged`], [`MemoryError::OtherEmbedder`], [`MemoryError::File`].
    pub fn open(&self) -> Result<(), MemoryError> {
        let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        if alarm.is_none() {
            self.inner.open()?;
            let started = Alarm::start(Arc::clone(&self.inner));
            *alarm = Some(started.inspect_err(|_| self.inner.close()).map_err(MemoryError::NoThread)?);
        }
        Ok(())
    }

    /// Closes it. One that is not open stays as it is. A job does this itself.
    pub fn close(&self) {
        let alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(alarm);
        self.inner.close();
    }

    /// Remembers turns of a scope, in their order, and returns their ids. Turns that are there already, by id, role and
    /// text, are left as they are, so what failed half-way can be appended again. If one is refused, none is
    /// remembered. If the process is killed meanwhile, the first of them may be remembered without the others.
    ///
    /// # Errors
    /// A [`MemoryError`]. [`OtherText`](MemoryError::OtherText) for an id that is there with another role or text.
    pub fn append(&self, scope: &Scope, turns: Vec<NewTurn>) -> Result<Vec<String>, MemoryError> {
        self.append_all(turns.into_iter().map(|turn| (scope.clone(), turn)).collect())
    }

    /// Remembers turns of any scopes, as [`append`](Self::append) does.
    ///
    /// # Errors
    /// As those of [`append`](Self::append).
    pub fn append_all(&self, turns: Vec<(Scope, NewTurn)>) -> Result<Vec<String>, MemoryError> {
        self.inner.append(turns)
    }

    /// Changes a turn. Its earlier versions stay in its [history](Self::history).
    ///
    /// # Errors
    /// A [`MemoryError`]. [`UnknownTurn`](MemoryError::UnknownTurn), also for one that was deleted.
    pub fn update(&self, scope: &Scope, id: &str, change: impl Into<Change>) -> Result<(), MemoryError> {
        self.inner.update(scope, id, change.into())
    }

    /// Deletes a turn. What it said stays in its [history](Self::history), and in the memory of moments before, until
    /// it is [erased](Self::erase_turn). Its id is not used again.
    ///
    /// # Errors
    /// [`MemoryError::UnknownTurn`], [`MemoryError::File`].
    pub fn delete(&self, scope: &Scope, id: &str) -> Result<(), MemoryError> {
        self.inner.delete(scope, id)
    }

    /// The turn with this id in exactly this scope, if there is one.
    ///
    /// # Errors
    /// [`MemoryError::NotOpen`], [`MemoryError::BadScope`].
    pub fn get(&self, scope: &Scope, id: &str) -> Result<Option<Turn>, MemoryError> {
        self.read_turn(scope, id, None)
    }

    /// The turn as it was at a moment.
    ///
    /// # Errors
    /// As those of [`get`](Self::get).
    pub fn get_at(&self, scope: &Scope, id: &str, moment: Timestamp) -> Result<Option<Turn>, MemoryError> {
        self.read_turn(scope, id, Some(to_micros(moment)))
    }

    fn read_turn(&self, scope: &Scope, id: &str, at: Option<i64>) -> Result<Option<Turn>, MemoryError> {
        scope.check()?;
        self.inner.read(|contents, now| {
            let slot = contents.slot(contents.find(scope, id)?);
            Some(contents.turn(slot, View { now, at }.of(slot)?))
        })
    }

    /// All versions of a turn, oldest first; none for one that is not there.
    ///
    /// # Errors
    /// As those of [`get`](Self::get).
    pub fn history(&self, scope: &Scope, id: &str) -> Result<Vec<Version>, MemoryError> {
        scope.check()?;
        self.inner.read(|contents, now| {
            let slot = contents.find(scope, id).map(|slot| contents.slot(slot));
            slot.filter(|slot| !slot.is_expired(now)).map_or_else(Vec::new, |slot| contents.versions(slot))
        })
    }

    /// The latest turns of a scope, oldest first. A number is one of turns. Of a scope without turns there are none.
    ///
    /// # Errors
    /// [`MemoryError::NotOpen`], [`MemoryError::BadScope`], [`MemoryError::BadQuery`].
    pub fn window(&self, scope: &Scope, window: impl Into<Window>) -> Result<Vec<Turn>, MemoryError> {
        let window = window.into();
        scope.check()?;
        window.check()?;
        window.fill(|before, most| {
            self.inner.read(|contents, now| {
                let view = View { now, at: window.moment() };
                window::latest(contents, &contents.leaves_in(scope), view, before, most)
            })
        })
    }

    /// The turns of a scope that fit best, best first. The same memory gives the same answer, always. Of a scope
    /// without turns there are none.
    ///
    /// # Errors
    /// A [`MemoryError`].
    pub fn recall(&self, scope: &Scope, recall: impl Into<Recall>) -> Result<Vec<Recalled>, MemoryError> {
        let recall = self.inner.prepared(recall.into())?;
        scope.check()?;
        self.inner
            .read(|contents, now| recall.among(contents, &contents.leaves_in(scope), View { now, at: recall.moment() }))
    }

    /// How many turns a scope has.
    ///
    /// # Errors
    /// [`MemoryError::NotOpen`], [`MemoryError::BadScope`].
    pub fn count(&self, scope: &Scope) -> Result<usize, MemoryError> {
        scope.check()?;
        self.inner.read(|contents, now| {
            let leaves = contents.leaves_in(scope);
            let slots = leaves.iter().flat_map(|leaf| contents.order(*leaf).values());
            slots.filter(|slot| View { now, at: None }.of(contents.slot(**slot)).is_some()).count()
        })
    }

    /// The scopes within this one that have turns, or had some that were deleted and not erased, in no order.
    ///
    /// # Errors
    /// As those of [`count`](Self::count).
    pub fn scopes(&self, within: &Scope) -> Result<Vec<Scope>, MemoryError> {
        within.check()?;
        let scopes = |contents: &Contents, _| {
            contents.leaves_in(within).iter().map(|leaf| contents.scope(*leaf).clone()).collect()
        };
        self.inner.read(scopes)
    }

    /// A moment of the memory: what was written before belongs to it, and what is written later does not.
    ///
    /// # Errors
    /// [`MemoryError::NotOpen`].
    pub fn moment(&self) -> Result<Timestamp, MemoryError> {
        self.inner.read(|_, _| from_micros(self.inner.stamp()))
    }

    /// Erases what has expired, and says how many turns. It happens by itself, within a tenth of a second.
    ///
    /// # Errors
    /// [`MemoryError::NotOpen`], [`MemoryError::File`].
    pub fn expire(&self) -> Result<usize, MemoryError> {
        self.inner.expire()
    }
}

impl Service for Memory {
    fn setup(&self, cx: &HookContext) -> Result<(), BoxError> {
        if let Some(embedder) = self.inner.embedder() {
            embedder.setup(cx)?;
        }
        Ok(self.open()?)
    }

    fn health(&self) -> Result<(), BoxError> {
        self.inner.embedder().map_or(Ok(()), |embedder| embedder.health())?;
        Ok(self.inner.read(|_, _| ())?)
    }

    fn stop(&self, cx: &HookContext) -> Result<(), BoxError> {
        self.inner.embedder().map_or(Ok(()), |embedder| embedder.stop(cx))
    }

    fn cleanup(&self, cx: &HookContext) -> Result<(), BoxError> {
        self.close();
        self.inner.embedder().map_or(Ok(()), |embedder| embedder.cleanup(cx))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.close();
    }
}
