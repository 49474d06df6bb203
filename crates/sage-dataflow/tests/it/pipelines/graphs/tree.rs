//! Trees of transformations, and how a tree that fails is made smaller.
//!
//! What proptest makes of a recursive strategy keeps every step above the one that fails; here a step is replaced by
//! what goes into it, so that the steps that do not matter disappear.

use std::collections::VecDeque;
use std::fmt::Debug;

use proptest::prelude::*;
use proptest::strategy::{NewTree, ValueTree};
use proptest::test_runner::TestRunner;

/// Leaves that are sources, steps of one stream, and steps of two; each step in so many replicas.
#[derive(Debug, Clone)]
pub(super) enum Tree<L, O, T> {
    Leaf(L),
    One(O, usize, Box<Self>),
    Two(T, usize, Box<Self>, Box<Self>),
}

use Tree::{Leaf, One, Two};

/// What can be tried in place of something that fails, the smallest first.
pub(super) trait Smaller: Sized {
    fn smaller(&self) -> Vec<Self>;
}

/// What can be tried in place of a leaf: also a tree that was inside of it.
pub(super) trait Ends<O, T>: Sized {
    fn smaller(&self) -> Vec<Tree<Self, O, T>>;
}

impl<L: Ends<O, T> + Clone, O: Clone, T: Clone> Smaller for Tree<L, O, T> {
    fn smaller(&self) -> Vec<Self> {
        let boxed = |trees: Vec<Self>| trees.into_iter().map(Box::new);
        match self {
            Leaf(leaf) => leaf.smaller(),
            One(step, replicas, inner) => {
                let mut all = vec![(**inner).clone()];
                all.extend(fewer(*replicas).map(|replicas| One(step.clone(), replicas, inner.clone())));
                all.extend(boxed(inner.smaller()).map(|inner| One(step.clone(), *replicas, inner)));
                all
            }
            Two(step, replicas, left, right) => {
                let mut all = vec![(**left).clone(), (**right).clone()];
                all.extend(fewer(*replicas).map(|replicas| Two(step.clone(), replicas, left.clone(), right.clone())));
                all.extend(boxed(left.smaller()).map(|left| Two(step.clone(), *replicas, left, right.clone())));
                all.extend(boxed(right.smaller()).map(|right| Two(step.clone(), *replicas, left.clone(), right)));
                all
            }
        }
    }
}

/// Fewer of something of which there is one at least.
pub(super) fn fewer(count: usize) -> impl Iterator<Item = usize> {
    [1, count / 2, count.saturating_sub(1)].into_iter().filter(move |&fewer| (1..count).contains(&fewer))
}

impl<T: Clone> Smaller for Vec<T> {
    fn smaller(&self) -> Vec<Self> {
        let half = self.len() / 2;
        let mut all = Vec::new();
        if half > 0 {
            all.extend([self[..half].to_vec(), self[half..].to_vec()]);
        }
        all.extend((0..self.len()).map(|without| {
            let mut fewer = self.clone();
            fewer.remove(without);
            fewer
        }));
        all
    }
}

/// Random trees; sources and steps are chosen by their strategies.
pub(super) fn trees<L, O, T>(
    depth: u32,
    leaf: BoxedStrategy<L>,
    one: BoxedStrategy<O>,
    two: BoxedStrategy<T>,
) -> BoxedStrategy<Tree<L, O, T>>
where
    L: Debug + Clone + 'static,
    O: Debug + Clone + 'static,
    T: Debug + Clone + 'static,
{
    let recursive = move |tree: BoxedStrategy<Tree<L, O, T>>| {
        let inner = || tree.clone().prop_map(Box::new);
        let joined = (two.clone(), 1..6_usize, inner(), inner());
        prop_oneof![
            3 => (one.clone(), 1..6_usize, inner()).prop_map(|(step, n, inner)| One(step, n, inner)),
            1 => joined.prop_map(|(step, n, left, right)| Two(step, n, left, right)),
        ]
    };
    leaf.prop_map(Leaf).prop_recursive(depth, 8, 2, recursive).boxed()
}

/// A strategy whose values are made smaller by [`Smaller`].
#[derive(Debug)]
pub(super) struct Shrunk<S>(pub(super) S);

impl<S: Strategy> Strategy for Shrunk<S>
where
    S::Value: Smaller + Clone,
{
    type Tree = Candidate<S::Value>;
    type Value = S::Value;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let value = self.0.new_tree(runner)?.current();
        Ok(Candidate { failing: value.clone(), candidate: value, others: VecDeque::new() })
    }
}

/// The smallest value known to fail, the one that is tried, and those to try if that passes.
pub(super) struct Candidate<V> {
    failing: V,
    candidate: V,
    others: VecDeque<V>,
}

impl<V: Smaller + Clone> Candidate<V> {
    fn try_next(&mut self) -> bool {
        let next = self.others.pop_front();
        let found = next.is_some();
        self.candidate = next.unwrap_or_else(|| self.failing.clone());
        found
    }
}

impl<V: Smaller + Clone + Debug> ValueTree for Candidate<V> {
    type Value = V;

    fn current(&self) -> V {
        self.candidate.clone()
    }

    /// The candidate fails: it is the one to beat.
    fn simplify(&mut self) -> bool {
        self.failing = self.candidate.clone();
        self.others = self.failing.smaller().into();
        self.try_next()
    }

    /// The candidate passes: it was not what is looked for.
    fn complicate(&mut self) -> bool {
        self.try_next()
    }
}
