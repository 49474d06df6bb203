//! Operators with several inputs: a record of any input is a variant of `In2` to `In5`.
//!
//! A task reads one inbox. The streams that lead to it wrap their records into one sum type at the ends of their
//! chains, so that an operator of several inputs is an operator like any other. Knows nothing of how records are
//! wrapped and routed.

use std::convert::Infallible;
use std::marker::PhantomData;

use super::map::{Output, Through};
use crate::chain::{Fault, Flags, Outlet, Stage};
use crate::key::{Hashed, KeySelector};
use crate::table::Table;

/// The place of one input in a sum type.
pub(crate) trait HasInput<const INPUT: usize>: Send + 'static {
    /// The records of the input.
    type Part: Send + 'static;
    /// Wraps a record of the input.
    fn wrap(part: Self::Part) -> Self;
    /// The record of the input that was wrapped.
    fn part(&self) -> &Self::Part;
    /// The record of the input that was wrapped, taken out.
    fn into_part(self) -> Self::Part;
}

/// Selects the key of a record of one input in its wrapping, as `S` selects that of the bare record.
///
/// Asked only where that input's records are, so that the compiler leaves no trace of the wrapping.
#[derive(Clone)]
pub(crate) struct Of<S, const INPUT: usize>(pub(crate) S);

impl<T, S, const INPUT: usize> KeySelector<T> for Of<S, INPUT>
where
    T: HasInput<INPUT>,
    S: KeySelector<T::Part>,
{
    type Key = S::Key;
    type Lookup = S::Lookup;
    type Selected<'a> = S::Selected<'a>;

    #[inline(always)]
    fn select<'a>(&mut self, record: &'a T) -> S::Selected<'a> {
        self.0.select(record.part())
    }

    #[inline(always)]
    fn lookup<'a>(selected: &'a S::Selected<'_>) -> &'a S::Lookup {
        S::lookup(selected)
    }

    #[inline(always)]
    fn into_key(selected: S::Selected<'_>) -> S::Key {
        S::into_key(selected)
    }

    type Noted = S::Noted;

    #[inline(always)]
    fn note(selected: S::Selected<'_>) -> S::Noted {
        S::note(selected)
    }

    #[inline(always)]
    fn noted<'a>(&mut self, noted: S::Noted, record: &'a T) -> S::Selected<'a> {
        self.0.noted(noted, record.part())
    }

    type Held = S::Held;

    #[inline(always)]
    fn hold<V>(&mut self, record: T, table: &Table<S::Key, V>) -> (u64, S::Held) {
        self.0.hold(record.into_part(), table)
    }

    #[inline(always)]
    fn take_key(&mut self, record: T) -> S::Key {
        self.0.take_key(record.into_part())
    }

    #[inline(always)]
    fn state<'t, V>(
        &mut self,
        table: &'t mut Table<S::Key, V>,
        held: &mut Hashed<S::Held>,
        new: impl FnOnce() -> V,
    ) -> &'t mut V {
        self.0.state(table, held, new)
    }
}

/// `co_map`: one function per input, all of one result.
pub(crate) struct CoMap<F, I, O> {
    functions: F,
    types: PhantomData<fn(I) -> O>,
}

impl<F, I, O> CoMap<F, I, O> {
    pub(crate) fn new(functions: F) -> Self {
        Self { functions, types: PhantomData }
    }
}

impl<F: Clone, I, O> Clone for CoMap<F, I, O> {
    fn clone(&self) -> Self {
        Self::new(self.functions.clone())
    }
}

/// `co_process`: one function for the records of all inputs, with a state per key.
pub(crate) struct CoProcess<S, F, I, K, V, O> {
    keys: S,
    initial: V,
    function: F,
    states: Table<K, V>,
    types: PhantomData<fn(I) -> O>,
}

impl<S, F, I, K, V, O> CoProcess<S, F, I, K, V, O> {
    pub(crate) fn new(keys: S, initial: V, function: F) -> Self {
        Self { keys, initial, function, states: Table::default(), types: PhantomData }
    }
}

impl<S: Clone, F: Clone, I, K, V: Clone, O> Clone for CoProcess<S, F, I, K, V, O> {
    fn clone(&self) -> Self {
        Self::new(self.keys.clone(), self.initial.clone(), self.function.clone())
    }
}

/// A sum type of so many inputs, and what is implemented for each.
macro_rules! inputs {
    ($(#[$doc:meta])* $In:ident: $($Variant:ident $F:ident $S:ident $index:tt),+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $In<$($Variant),+> {
            $(#[doc = concat!("A record of input ", stringify!($index), ", from 0.")] $Variant($Variant)),+
        }

        inputs!(@slots $In [$($Variant),+] $($Variant $index),+);

        impl<$($Variant, $F,)+ O> Stage for CoMap<($($F,)+), $In<$($Variant),+>, O>
        where
            $($Variant: Send + 'static, $F: FnMut($Variant) -> O + Send + 'static,)+
            O: Send + 'static,
        {
            type In = $In<$($Variant),+>;
            type Out = O;
            type Side = Infallible;
            const FLAGS: Flags = Flags::ONE_TO_ONE;

            #[inline(always)]
            fn process(&mut self, record: Self::In, out: &mut impl Outlet<O, Infallible>) -> Result<(), Fault> {
                match record {
                    $($In::$Variant(part) => out.emit((self.functions.$index)(part)),)+
                }
            }
        }

        impl<$($Variant, $S,)+ F, K, V, O> Stage for CoProcess<($($S,)+), F, $In<$($Variant),+>, K, V, O>
        where
            $($Variant: Send + 'static, $S: KeySelector<$Variant, Key = K>,)+
            F: FnMut(&mut V, $In<$($Variant),+>, &mut Output<'_, O>) + Send + 'static,
            K: std::hash::Hash + Eq + Send + 'static,
            V: Clone + Send + 'static,
            O: Send + 'static,
        {
            type In = $In<$($Variant),+>;
            type Out = O;
            type Side = Infallible;
            const FLAGS: Flags = Flags::ANY;

            #[inline(always)]
            fn process(&mut self, record: Self::In, out: &mut impl Outlet<O, Infallible>) -> Result<(), Fault> {
                let state = match &record {
                    $($In::$Variant(part) => {
                        self.keys.$index.state_of(&mut self.states, part, || self.initial.clone())
                    })+
                };
                let mut way = Through(out);
                let mut output = Output::over(&mut way);
                (self.function)(state, record, &mut output);
                output.end()
            }
        }
    };
    (@slots $In:ident $all:tt $($Variant:ident $index:tt),+) => {
        $(inputs!(@slot $In $all $Variant $index);)+
    };
    (@slot $In:ident [$($All:ident),+] $Variant:ident $index:tt) => {
        impl<$($All: Send + 'static),+> HasInput<$index> for $In<$($All),+> {
            type Part = $Variant;

            #[inline(always)]
            fn wrap(part: $Variant) -> Self {
                Self::$Variant(part)
            }

            #[inline(always)]
            fn part(&self) -> &$Variant {
                match self {
                    Self::$Variant(part) => part,
                    _ => unreachable!("the lanes of an input carry its records alone"),
                }
            }

            #[inline(always)]
            fn into_part(self) -> $Variant {
                match self {
                    Self::$Variant(part) => part,
                    _ => unreachable!("the lanes of an input carry its records alone"),
                }
            }
        }
    };
}

inputs! {
    /// A record of one of two connected streams.
    In2: A FA SA 0, B FB SB 1
}
inputs! {
    /// A record of one of three connected streams.
    In3: A FA SA 0, B FB SB 1, C FC SC 2
}
inputs! {
    /// A record of one of four connected streams.
    In4: A FA SA 0, B FB SB 1, C FC SC 2, D FD SD 3
}
inputs! {
    /// A record of one of five connected streams.
    In5: A FA SA 0, B FB SB 1, C FC SC 2, D FD SD 3, E FE SE 4
}
