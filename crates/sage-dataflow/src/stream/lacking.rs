//! What a stream may lack: a key, or event times. The compiler then says what is missing, and tells of no other error.

use super::Stream;
use super::pipe::Pipe;
use crate::operator::Output;
use crate::time::Timed;

/// Windows over records `R` that have an event time: a [`Timed`], as [`Stream::with_timestamps`] makes them. Only the
/// engine implements it.
#[diagnostic::on_unimplemented(
    message = "the records have no event time",
    label = "this needs `with_timestamps` before it",
    note = "add `.with_timestamps(|record| .., OutOfOrder::by(..))` before `key_by`; or use `window_by_clock`"
)]
pub trait InEventTime<R>: Sized {
    /// The same windows. Those over records without a time have a type that is wrong by this, so that the compiler
    /// tells of no other error.
    #[doc(hidden)]
    type Same;

    #[doc(hidden)]
    fn same(self) -> Self::Same;
}

#[diagnostic::do_not_recommend]
impl<W, T: Send + 'static> InEventTime<Timed<T>> for W {
    type Same = W;

    fn same(self) -> W {
        self
    }
}

/// The argument of a step on a stream that is grouped by key. Nothing implements it: it has the compiler say what a
/// [`Stream`] lacks. It is asked of the argument, and not of the stream, for a method whose stream does not fit is told
/// of in more words.
#[diagnostic::on_unimplemented(
    message = "the stream is not grouped by key",
    label = "this needs `key_by` before it",
    note = "add `.key_by(|record| ..)` before this step; to take all records together, `.key_by(|_| ())`"
)]
pub trait OfKeyed {
    /// What the step would give.
    type Step;
}

impl<P: Pipe> Stream<P> {
    #[doc(hidden)]
    pub fn window<W: OfKeyed>(self, _windows: W) -> W::Step {
        unreachable!("nothing is of a keyed stream")
    }

    #[doc(hidden)]
    pub fn window_by_clock<W: OfKeyed>(self, _windows: W) -> W::Step {
        unreachable!("nothing is of a keyed stream")
    }

    #[doc(hidden)]
    pub fn map_with_state<A: OfKeyed, O, G>(self, _initial: A, _function: G) -> A::Step
    where
        G: FnMut(&mut A, P::Out) -> O,
    {
        unreachable!("nothing is of a keyed stream")
    }

    #[doc(hidden)]
    pub fn flat_map_with_state<A: OfKeyed, O, G>(self, _initial: A, _function: G) -> A::Step
    where
        G: FnMut(&mut A, P::Out, &mut Output<'_, O>),
    {
        unreachable!("nothing is of a keyed stream")
    }

    #[doc(hidden)]
    pub fn expire_after<D: OfKeyed>(self, _ttl: D) -> D::Step {
        unreachable!("nothing is of a keyed stream")
    }

    #[doc(hidden)]
    pub fn top_k<N: OfKeyed, R, G>(self, _most: N, _rank: G) -> N::Step
    where
        G: FnMut(&P::Out) -> R,
    {
        unreachable!("nothing is of a keyed stream")
    }

    #[doc(hidden)]
    pub fn join<R: OfKeyed>(self, _right: R) -> R::Step {
        unreachable!("nothing is of a keyed stream")
    }
}
