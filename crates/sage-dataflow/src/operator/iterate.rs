//! `iterate`: rounds in which every key works on its state, with the messages that keys sent it in the round before.
//!
//! Two operators in a loop. [`Iterate`] has the states, in several replicas; each sends the messages of a round and,
//! behind them, a [`Turn::Done`]. [`Barrier`], at the head of the loop, passes messages on, and when all replicas are
//! done it has them begin the next round. Lanes keep the order: a replica that is to begin a round has all messages of
//! the round before, and none of a later one. The first round begins likewise, when the input of all replicas has
//! ended: one that began by itself would send messages to others that have not. Nobody begins a round after the last
//! one, or after one without a message; then nothing is left in the loop, which ends as loops do
//! (`exchange/rounds.rs`).

use std::fmt;
use std::marker::PhantomData;

use super::connect::In2;
use super::map::{Output, Through};
use crate::chain::{Emit, Fault, Flags, OpenContext, Operator, Outlet, Signal, Stage};
use crate::key::KeySelector;
use crate::table::Table;

/// What goes round in the loop.
#[derive(Debug)]
pub(crate) enum Turn<K, M> {
    /// For a key.
    Message(K, M),
    /// One of so many replicas is done with its input, or with its round, in which it sent so many messages.
    Done {
        /// How many replicas there are.
        replicas: usize,
        /// How many messages it sent.
        sent: u64,
    },
    /// A replica is to begin the round.
    Begin {
        /// The round, from 0.
        round: u64,
        /// The replica, from 0.
        replica: usize,
    },
}

/// The context of a function of [`iterate`](crate::KeyedStream::iterate): its key, its round, and messages to send.
pub struct Round<'a, 'o, K, M> {
    number: u64,
    key: &'a K,
    sent: &'a mut u64,
    output: &'a mut Output<'o, Turn<K, M>>,
}

impl<K, M> Round<'_, '_, K, M> {
    /// The number of the round, from 0.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The key whose state it is.
    pub fn key(&self) -> &K {
        self.key
    }

    /// Sends a message to a key, which gets it in the next round. A key that no record had gets a state as well.
    pub fn send(&mut self, to: K, message: M) {
        *self.sent += 1;
        self.output.push(Turn::Message(to, message));
    }
}

impl<K: fmt::Debug, M> fmt::Debug for Round<'_, '_, K, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Round").field("number", &self.number).field("key", &self.key).finish_non_exhaustive()
    }
}

/// A key's state, and what it was sent.
struct Place<A, M> {
    state: A,
    messages: Vec<M>,
}

/// The states of the keys of one replica, and what is done with them.
pub(crate) struct Iterate<S: KeySelector<I>, L, F, I, A, M> {
    key: S,
    initial: A,
    load: L,
    function: F,
    places: Table<S::Key, Place<A, M>>,
    replicas: usize,
    types: PhantomData<fn(I)>,
}

impl<S: KeySelector<I>, L, F, I, A, M> Iterate<S, L, F, I, A, M> {
    pub(crate) fn new(key: S, initial: A, load: L, function: F) -> Self {
        Self { key, initial, load, function, places: Table::default(), replicas: 1, types: PhantomData }
    }
}

impl<S: KeySelector<I>, L: Clone, F: Clone, I, A: Clone, M> Clone for Iterate<S, L, F, I, A, M> {
    fn clone(&self) -> Self {
        Self::new(self.key.clone(), self.initial.clone(), self.load.clone(), self.function.clone())
    }
}

/// Sends out by the side.
struct Sideways<'a, X, M>(&'a mut X, PhantomData<fn() -> M>);

impl<T, M, X: Outlet<M, T>> Emit<T> for Sideways<'_, X, M> {
    fn emit(&mut self, record: T) -> Result<(), Fault> {
        self.0.emit_side(record)
    }
}

impl<S, L, F, I, A, M> Iterate<S, L, F, I, A, M>
where
    S: KeySelector<I>,
    F: FnMut(&mut A, Vec<M>, &mut Round<'_, '_, S::Key, M>),
{
    /// Calls the function for each key, and says that this replica is done.
    fn run<O>(&mut self, number: u64, out: &mut impl Outlet<O, Turn<S::Key, M>>) -> Result<(), Fault> {
        let Self { places, function, .. } = self;
        let mut sent = 0;
        for (key, Place { state, messages }) in places.iter_mut() {
            let messages = std::mem::take(messages);
            let mut sideways = Sideways(&mut *out, PhantomData);
            let mut way = Through(&mut sideways);
            let mut output = Output::over(&mut way);
            function(state, messages, &mut Round { number, key, sent: &mut sent, output: &mut output });
            output.end()?;
            // Keys that send nothing may be many.
            out.look()?;
        }
        out.emit_side(Turn::Done { replicas: self.replicas, sent })
    }
}

impl<S, L, F, I, A, M> Stage for Iterate<S, L, F, I, A, M>
where
    S: KeySelector<I>,
    L: FnMut(&mut A, I) + Send + 'static,
    F: FnMut(&mut A, Vec<M>, &mut Round<'_, '_, S::Key, M>) + Send + 'static,
    I: Send + 'static,
    A: Clone + Send + 'static,
    M: Send + 'static,
{
    type In = In2<I, Turn<S::Key, M>>;
    type Out = (S::Key, A);
    type Side = Turn<S::Key, M>;
    const FLAGS: Flags = Flags { side: true, ..Flags::ANY };

    fn open(&mut self, cx: &OpenContext) -> Result<(), Fault> {
        self.replicas = cx.parallelism;
        Ok(())
    }

    fn process(&mut self, record: Self::In, out: &mut impl Outlet<Self::Out, Self::Side>) -> Result<(), Fault> {
        let initial = &self.initial;
        let new = || Place { state: initial.clone(), messages: Vec::new() };
        match record {
            In2::A(record) => {
                let place = self.key.state_of(&mut self.places, &record, new);
                (self.load)(&mut place.state, record);
                Ok(())
            }
            In2::B(Turn::Message(to, message)) => {
                let hash = self.places.begin(&to);
                self.places.value(hash, to, new).messages.push(message);
                Ok(())
            }
            In2::B(Turn::Begin { round, .. }) => self.run(round, out),
            In2::B(Turn::Done { .. }) => Ok(()),
        }
    }

    fn signal(&mut self, signal: Signal, out: &mut impl Outlet<Self::Out, Self::Side>) -> Result<(), Fault> {
        match signal {
            Signal::InputEnded(0) => out.emit_side(Turn::Done { replicas: self.replicas, sent: 0 }),
            Signal::Finish => self.places.drain().try_for_each(|(key, place)| out.emit((key, place.state))),
            _ => Ok(()),
        }
    }
}

/// Waits for all replicas before it begins a round.
pub(crate) struct Barrier<K, M> {
    rounds: u64,
    /// How many rounds have begun.
    begun: u64,
    /// How many replicas are done with the last one, and how many messages these have sent.
    done: usize,
    sent: u64,
    types: PhantomData<fn(K, M)>,
}

impl<K, M> Barrier<K, M> {
    /// Of so many rounds at most.
    pub(crate) fn new(rounds: u64) -> Self {
        Self { rounds, begun: 0, done: 0, sent: 0, types: PhantomData }
    }
}

impl<K: Send + 'static, M: Send + 'static> Operator for Barrier<K, M> {
    type In = Turn<K, M>;
    type Out = Turn<K, M>;

    fn process(&mut self, turn: Turn<K, M>, out: &mut impl Emit<Turn<K, M>>) -> Result<(), Fault> {
        let Turn::Done { replicas, sent } = turn else { return out.emit(turn) };
        self.done += 1;
        self.sent += sent;
        if self.done < replicas {
            return Ok(());
        }
        self.done = 0;
        let is_quiet = std::mem::take(&mut self.sent) == 0;
        if self.begun >= self.rounds || (self.begun > 0 && is_quiet) {
            return Ok(());
        }
        let round = self.begun;
        self.begun += 1;
        (0..replicas).try_for_each(|replica| out.emit(Turn::Begin { round, replica }))
    }
}
