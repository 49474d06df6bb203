//! How many bytes a record takes: the size of its type, and the memory it holds elsewhere, as far as that is known.

use std::any::{Any, TypeId};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use crate::chain::DeadLetter;
use crate::time::Timed;

/// Tells how many bytes a record holds beside the size of its type.
pub(crate) type Weigh<T> = Arc<dyn Fn(&T) -> usize + Send + Sync>;

/// What the user has said of the records of each type, the last word last.
#[derive(Default)]
pub(crate) struct Weights(Vec<(TypeId, Box<dyn Any + Send>)>);

impl Weights {
    /// Notes how records of a type are weighed, alone and in the engine's own wrappings.
    pub(crate) fn say<T: 'static>(&mut self, weigh: impl Fn(&T) -> usize + Send + Sync + 'static) {
        let weigh = Arc::new(weigh);
        let (timed, dead) = (weigh.clone(), weigh.clone());
        self.add::<Timed<T>>(Arc::new(move |record| timed(&record.value)));
        self.add::<DeadLetter<T>>(Arc::new(move |letter| dead(&letter.record)));
        self.add::<T>(weigh);
    }

    fn add<T: 'static>(&mut self, weigh: Weigh<T>) {
        self.0.push((TypeId::of::<T>(), Box::new(weigh)));
    }

    /// How records of a type are weighed; `None` where no more is known of them than their size.
    pub(crate) fn of<T: 'static>(&self) -> Option<Weigh<T>> {
        let said = self.0.iter().rev().find(|(of, _)| *of == TypeId::of::<T>());
        said.and_then(|(_, weigh)| weigh.downcast_ref::<Weigh<T>>().cloned()).or_else(known::<T>)
    }
}

/// What holds bytes outside itself, and tells how many.
trait Holds {
    fn held(&self) -> usize;
}

macro_rules! holds {
    ($($Type:ty: $held:expr;)+) => {
        $(impl Holds for $Type {
            fn held(&self) -> usize {
                let held: fn(&Self) -> usize = $held;
                held(self)
            }
        })+

        /// How records of the types that are known are weighed.
        fn known<T: 'static>() -> Option<Weigh<T>> {
            let all: [fn() -> Option<Weigh<T>>; _] =
                [$(as_it_is::<$Type, T>, as_it_is::<Option<$Type>, T>, as_it_is::<Timed<$Type>, T>,)+];
            all.into_iter().find_map(|weigh| weigh())
        }
    };
}

holds! {
    String: Self::capacity;
    PathBuf: Self::capacity;
    OsString: Self::capacity;
    Box<str>: |text| text.len();
    Box<[u8]>: |bytes| bytes.len();
    Vec<u8>: |bytes| bytes.capacity();
    Vec<i8>: in_vec;
    Vec<u16>: in_vec;
    Vec<i16>: in_vec;
    Vec<u32>: in_vec;
    Vec<i32>: in_vec;
    Vec<f32>: in_vec;
    Vec<u64>: in_vec;
    Vec<i64>: in_vec;
    Vec<f64>: in_vec;
    Vec<usize>: in_vec;
    Vec<bool>: in_vec;
    Vec<char>: in_vec;
    Vec<String>: |texts| in_vec(texts) + texts.iter().map(Holds::held).sum::<usize>();
    Vec<Vec<u8>>: |all| in_vec(all) + all.iter().map(Holds::held).sum::<usize>();
    Vec<Vec<f32>>: |all| in_vec(all) + all.iter().map(Holds::held).sum::<usize>();
}

fn in_vec<T>(items: &Vec<T>) -> usize {
    items.capacity() * size_of::<T>()
}

impl<T: Holds> Holds for Option<T> {
    fn held(&self) -> usize {
        self.as_ref().map_or(0, Holds::held)
    }
}

impl<T: Holds> Holds for Timed<T> {
    fn held(&self) -> usize {
        self.value.held()
    }
}

/// How a `K` is weighed, for `T` if that is the same type.
fn as_it_is<K: Holds + 'static, T: 'static>() -> Option<Weigh<T>> {
    if TypeId::of::<K>() != TypeId::of::<T>() {
        return None;
    }
    let weigh: Weigh<K> = Arc::new(K::held);
    let weigh: Box<dyn Any> = Box::new(weigh);
    weigh.downcast().ok().map(|weigh| *weigh)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    fn held<T: 'static>(weights: &Weights, record: &T) -> Option<usize> {
        weights.of::<T>().map(|weigh| weigh(record))
    }

    #[test]
    fn what_standard_types_hold_is_known() {
        let weights = Weights::default();
        assert_eq!(held(&weights, &"abc".to_owned()), Some(3));
        assert_eq!(held(&weights, &Some(vec![0_u8; 5])), Some(5));
        assert_eq!(held(&weights, &vec![0_f64; 5]), Some(40));
        assert_eq!(held(&weights, &vec!["ab".to_owned(), "c".to_owned()]), Some(2 * size_of::<String>() + 3));
        assert_eq!(held(&weights, &Timed { time: Timestamp::from_millis(0), value: "abc".to_owned() }), Some(3));
        assert_eq!(held(&weights, &7_u64), None);
        assert_eq!(held(&weights, &("abc".to_owned(), 1)), None);
    }

    #[test]
    fn what_the_user_says_comes_first_and_the_last_word_counts() {
        let mut weights = Weights::default();
        weights.say(|text: &String| text.len() * 2);
        weights.say(|text: &String| text.len() * 3);
        assert_eq!(held(&weights, &"abc".to_owned()), Some(9));
        assert_eq!(held(&weights, &Timed { time: Timestamp::from_millis(0), value: "abc".to_owned() }), Some(9));
    }
}
