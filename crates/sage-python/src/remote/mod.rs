//! Chains of Python functions that run in a worker process: what crosses is the chain of one replica, as data, and its
//! records in batches. The task, its lanes and what goes along them besides records stay here.

mod channel;
mod operator;
mod outbox;
mod outcome;
mod wire;
mod worker;

pub(crate) use channel::Channel;
pub(crate) use operator::RemoteChain;
pub(crate) use outbox::{Crossing, News, Outbox};
pub(crate) use outcome::{Judge, Outcome};
pub(crate) use wire::MOST_BYTES;
pub(crate) use worker::{WorkerChain, die_with_parent};
