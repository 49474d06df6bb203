//! [`Answer`]: what a method of a service has answered; kept as bytes where it is kept.
//!
//! Invariant: of an answer that is kept, each caller gets an object of its own, made of the bytes. So none can change
//! another's, and all get the same, whether the call was made for them or not.

use std::sync::{Arc, Mutex, OnceLock};

use pyo3::call::PyCallArgs;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sage::{BoxError, Codec, Tally, Usage};

use super::late::{self, Late};
use super::settings::InBatch;
use crate::error::{Raised, attempt};
use crate::object::Object;
use crate::thread::{attach, lock};

/// An answer. Clones of one that is kept are of the same bytes.
pub(crate) enum Answer {
    Plain(Object),
    Kept(Arc<OfBytes>),
}

pub(crate) struct OfBytes {
    codec: PythonCodec,
    bytes: OnceLock<Vec<u8>>,
    /// Until it is given to a caller, or made bytes of.
    object: Mutex<Option<Object>>,
}

impl Clone for Answer {
    fn clone(&self) -> Self {
        match self {
            Self::Plain(object) => Self::Plain(object.clone()),
            Self::Kept(kept) => Self::Kept(kept.clone()),
        }
    }
}

impl Answer {
    /// With a codec, it is to be kept.
    pub(super) fn of(py: Python<'_>, object: Py<PyAny>, codec: Option<&PythonCodec>) -> Self {
        let object = Object::from(object.into_bound(py));
        match codec {
            None => Self::Plain(object),
            Some(codec) => {
                let (codec, bytes) = (codec.clone(), OnceLock::new());
                Self::Kept(Arc::new(OfBytes { codec, bytes, object: Mutex::new(Some(object)) }))
            }
        }
    }

    /// The object for a caller.
    pub(super) fn given(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        match self {
            Self::Plain(object) => Ok(object.into_bound(py)),
            Self::Kept(kept) => {
                let object = lock(&kept.object).take();
                match (object, kept.bytes.get()) {
                    (Some(object), _) => Ok(object.into_bound(py)),
                    (None, Some(bytes)) => kept.codec.decoded(py, bytes),
                    (None, None) => unreachable!("an answer without bytes has one caller"),
                }
            }
        }
    }

    /// What it has cost, as the program's function says, if it says.
    pub(super) fn usage(&self, says: &Object) -> Option<Usage> {
        let used = attach(|py| told_of::<(u64, f64)>(py, says, (self.shown(py),)));
        used.map(|(cost, spent)| Usage { cost, spent })
    }

    /// What it adds to the figures of its service, as far as that is known now.
    pub(super) fn tally(&self, says: &Object, late: &Py<Late>) -> Tally {
        let told = attach(|py| told_of(py, says, (self.shown(py), late.clone_ref(py))));
        told.map_or_else(Tally::new, |(of, sums)| late::tally(of, sums))
    }

    /// The object, for a look.
    fn shown(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        match self {
            Self::Plain(object) => Some(object.clone_ref(py)),
            Self::Kept(kept) => lock(&kept.object).as_ref().map(|object| object.clone_ref(py)),
        }
    }
}

/// What a function says, if it does.
fn told_of<T: for<'a, 'py> FromPyObject<'a, 'py>>(
    py: Python<'_>,
    says: &Object,
    of: impl for<'py> PyCallArgs<'py>,
) -> Option<T> {
    let told = says.bind(py).call1(of).and_then(|told| told.extract::<Option<T>>().map_err(Into::into));
    told.unwrap_or_else(|error| {
        error.write_unraisable(py, Some(says.bind(py)));
        None
    })
}

/// Makes bytes of answers, and answers of bytes: see `Coded` in `python/sage/_keep.py`.
#[derive(Clone, FromPyObject)]
pub(crate) struct PythonCodec {
    encode: Object,
    decode: Object,
}

impl PythonCodec {
    fn decoded<'py>(&self, py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        self.decode.bind(py).call1((PyBytes::new(py, bytes),))
    }
}

fn not_coded(raised: Raised) -> BoxError {
    InBatch(raised).error()
}

impl Codec<Answer> for PythonCodec {
    fn encode(&self, value: &Answer, into: &mut Vec<u8>) -> Result<(), BoxError> {
        let Answer::Kept(kept) = value else { return Err("an answer that is not to be kept".into()) };
        if let Some(bytes) = kept.bytes.get() {
            into.extend_from_slice(bytes);
            return Ok(());
        }
        let object = lock(&kept.object).take();
        let encoded = attempt(|py| {
            let object = object.as_ref().map(|object| object.clone_ref(py));
            self.encode.call1(py, (object,))?.extract::<Vec<u8>>(py)
        });
        match encoded {
            Ok(bytes) => {
                into.extend_from_slice(&bytes);
                // It was not there before: the one caller that has the answer by now asks for it.
                let _ = kept.bytes.set(bytes);
                Ok(())
            }
            Err(raised) => {
                *lock(&kept.object) = object;
                Err(not_coded(raised))
            }
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<Answer, BoxError> {
        let object = attempt(|py| Ok(Object::from(self.decoded(py, bytes)?))).map_err(not_coded)?;
        let (codec, bytes) = (self.clone(), OnceLock::from(bytes.to_vec()));
        Ok(Answer::Kept(Arc::new(OfBytes { codec, bytes, object: Mutex::new(Some(object)) })))
    }
}

/// An answer for the engine, of what Python code gave or raised.
pub(super) fn told(given: Result<Py<PyAny>, Raised>, codec: Option<&PythonCodec>) -> Result<Answer, Raised> {
    given.map(|object| attach(|py| Answer::of(py, object, codec)))
}

/// The canonical form of the arguments of a call, if they have one; and its tag.
pub(super) type Form = (Option<Vec<u8>>, Option<String>);

/// The name of the keyword by which a method gets its call's idempotency key.
pub(super) fn idempotency_key(py: Python<'_>) -> &Bound<'_, pyo3::types::PyString> {
    intern!(py, "idempotency_key")
}
