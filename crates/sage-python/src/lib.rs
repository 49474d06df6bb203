//! The module `sage._sage`: the engine as the Python package `sage` uses it.
//!
//! It converts, and calls: Python objects become records, Python callables sources, operators, sinks and services. What
//! a program may write is decided in the Python package; how it runs, in the engine.
//!
//! Invariants:
//!  1. A thread holds the interpreter while it runs Python code, and at no other time: it attaches once for many
//!     records, and never waits for a channel, a service or a job while attached.
//!  2. A Python exception is carried as the object it is, and comes out of the call that ran the job.

mod async_call;
mod asynchronous;
mod attributes;
mod blocks;
mod bridge;
mod call_policy;
mod call_service;
mod chain;
mod chained;
mod command;
mod counts;
mod crossing;
mod cutter;
mod ended;
mod error;
mod folds;
mod functions;
mod future;
mod heed;
mod history;
mod job;
mod joins;
mod json;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(not(feature = "kafka"))]
#[path = "no_kafka.rs"]
mod kafka;

mod llm;
mod memory;
mod method;
mod metrics;
mod native;
mod object;
mod plan;
mod policies;
mod records;
mod remote;
mod retrieval;
mod rows;
mod service;
mod source;
mod spec;
mod stacks;
mod stage;
mod states;
mod steps;
mod texts;
mod thread;
mod timers;
mod value;
mod vectorcall;
mod waits;
mod weight;
mod windows;
mod words;
mod workers;

use std::sync::Arc;

use pyo3::prelude::*;

use crate::value::{Key, Value};

/// A record on its way through a pipeline.
#[derive(Clone)]
struct Record {
    value: Value,
    /// Its key, behind a `keyby`.
    key: Option<Arc<Key>>,
    /// When it happened, in milliseconds since 1970, behind `with_timestamps`; else zero.
    time: i64,
    /// About how many bytes its value takes while that is an object, as far as that is known.
    weight: u32,
}

impl Record {
    fn of(object: Bound<'_, PyAny>) -> Self {
        let weight = u32::try_from(weight::weight(&object)).unwrap_or(u32::MAX);
        Self { weight, ..Self::from(Value::Object(object.into())) }
    }

    /// About how many bytes it holds, whichever thread asks.
    fn held(&self) -> usize {
        match &self.value {
            Value::Object(_) => self.weight as usize,
            value => value.held(),
        }
    }

    /// Its key; `None`, as Python has it, where it was given none.
    fn key(&self) -> Arc<Key> {
        self.key.clone().unwrap_or_default()
    }

    /// The hash of its key.
    fn hash(&self) -> u64 {
        self.key.as_ref().map_or(0, |key| key.hash)
    }
}

impl From<Value> for Record {
    fn from(value: Value) -> Self {
        Self { value, key: None, time: 0, weight: 0 }
    }
}

// An interpreter without a lock turns it on when it loads this: much here goes through lists and objects that it takes
// for its own as long as its thread is attached.
#[pymodule(gil_used = true)]
mod _sage {
    use pyo3::exceptions::PyImportError;
    use pyo3::ffi;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // SAFETY: the thread is attached.
        match unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) } {
            0 => {
                module.add("version", env!("CARGO_PKG_VERSION"))?;
                module.add("most_frame_bytes", crate::remote::MOST_BYTES)?;
                module.add("Nothing", crate::waits::Wait::a_moment())?;
                module.add("Records", crate::records::class(module.py())?)?;
                module.add("Attributes", crate::attributes::attributes_type(module.py())?)
            }
            _ => Err(PyImportError::new_err("this is a subinterpreter")),
        }
    }

    #[cfg(feature = "kafka")]
    #[pymodule_export]
    use crate::kafka::KafkaCluster;
    #[pymodule_export]
    use crate::memory::{
        MemoryClosed, MemoryDamaged, MemoryFailed, MemoryFull, MemoryLocked, MemoryLog, NewTurn, OtherEmbedder,
        OtherText, Parts, Recalled, Receipt, Scope, Turn, TurnsChanged, UnknownScope, UnknownTurn, Version, Weights,
    };
    #[pymodule_export]
    use crate::retrieval::{
        Answer, Chunker, Citation, Citations, CrossEncoder, DocumentText, Documents, Embedder, Field, Filter, Hit,
        Ingest, LlmEmbedder, MiniLmEmbedder, OtherCollection, Passage, Plan, Record, Row, Sources, StaticEmbedder,
        StoreClosed, StoreDamaged, StoreError, StoreFull, StoreLocked, StoreUnavailable, UnknownCollection, Vector,
        VectorStore, documents, exact_match, field, ndcg_at, precision_at, read_document, recall_at, reciprocal_rank,
        rouge_l, token_f1,
    };
    #[pymodule_export]
    use crate::{
        bridge::Bridge,
        call_policy::{Late, PolicyCall, ServiceRefused},
        call_service::caller,
        command::command,
        crossing::crossing,
        ended::read_report,
        error::{CallEnded, HookOverdue, NotAwaited, ServiceError, StateNotKept, SubmitError, WorkerLost},
        future::ServiceFuture,
        job::{Job, WorksFor},
        llm::{LlmCall, LlmClient, LlmStream},
        method::Binding,
        plan::{start, tasks},
        records::records,
        remote::{Channel, WorkerChain, die_with_parent},
        service::Handle,
        spec::{Reset, Role, Spec, Strategy},
        thread::{await_end, end_attaching},
        waits::{Bell, Cancelled, Pause, Wait, is_cancelled_here, wait_in_source},
    };
}
