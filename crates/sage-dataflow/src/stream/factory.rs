//! Factories: how the operator of each replica is made, and how its input is spread over the replicas.

use std::convert::Infallible;
use std::marker::PhantomData;

use crate::chain::{Nowhere, Push, Stage};
use crate::exchange::{ByKey, Lanes, Partitioning, RoundRobin};
use crate::graph::wiring::BuildContext;
use crate::guarded::opaque;
use crate::ids::{EdgeId, NodeId};
use crate::key::KeySelector;
use crate::operator::{Dropped, OpenWindows, SetApart, Windows};

/// The operator may run in several replicas.
#[derive(Debug, Clone, Copy)]
pub struct Many;

/// The operator runs in one replica.
#[derive(Debug, Clone, Copy)]
pub struct One;

type InOf<F> = <<F as Factory>::Operator as Stage>::In;
type SideOf<F> = <<F as Factory>::Operator as Stage>::Side;

/// Makes the operator of each replica.
pub trait Factory: Send + 'static {
    /// The operator.
    type Operator: Stage;
    /// What sends the records that leave it by the side.
    type Side: Push<SideOf<Self>> + 'static;
    /// In how many replicas it may run: [`Many`] or [`One`].
    type Replicas;
    /// The router that spreads its input over its replicas.
    type Router: Push<InOf<Self>> + 'static;
    /// How that is spread.
    const PARTITIONING: Partitioning = Partitioning::RoundRobin;

    /// Makes one.
    fn make(&self) -> Self::Operator;
    /// Makes its way out by the side.
    fn side(&self, cx: &mut BuildContext<'_>) -> Self::Side;
    /// Makes the router of each producing replica, in the name of the operator at `node`.
    fn router(&self, node: NodeId) -> impl Fn(Lanes<InOf<Self>>, usize) -> Self::Router + Send + 'static;
}

/// Clones a prototype.
#[derive(Debug, Clone)]
pub struct Cloned<O, R = Many> {
    pub(super) operator: O,
    replicas: PhantomData<fn() -> R>,
}

impl<O, R> Cloned<O, R> {
    pub(super) fn new(operator: O) -> Self {
        Self { operator, replicas: PhantomData }
    }
}

impl<O: Stage<Side = Infallible> + Clone, R: 'static> Factory for Cloned<O, R> {
    type Operator = O;
    type Side = Nowhere;
    type Replicas = R;
    type Router = RoundRobin<O::In>;

    fn make(&self) -> O {
        self.operator.clone()
    }

    fn side(&self, _cx: &mut BuildContext<'_>) -> Nowhere {
        Nowhere
    }

    fn router(&self, _node: NodeId) -> impl Fn(Lanes<O::In>, usize) -> RoundRobin<O::In> + Send + 'static {
        RoundRobin::new
    }
}

/// Calls the user's factory.
#[derive(Debug, Clone)]
pub(crate) struct Made<F>(pub(super) F);

impl<O: Stage<Side = Infallible>, F: Fn() -> O + Send + 'static> Factory for Made<F> {
    type Operator = O;
    type Side = Nowhere;
    type Replicas = Many;
    type Router = RoundRobin<O::In>;

    fn make(&self) -> O {
        (self.0)()
    }

    fn side(&self, _cx: &mut BuildContext<'_>) -> Nowhere {
        Nowhere
    }

    fn router(&self, _node: NodeId) -> impl Fn(Lanes<O::In>, usize) -> RoundRobin<O::In> + Send + 'static {
        RoundRobin::new
    }
}

/// Clones a keyed operator, and spreads its input by key.
pub struct Keyed<O, S> {
    pub(super) operator: O,
    pub(super) key: S,
}
opaque!(Keyed<O, S>);

impl<O: Stage<Side = Infallible> + Clone, S: KeySelector<O::In>> Factory for Keyed<O, S> {
    type Operator = O;
    type Side = Nowhere;
    type Replicas = Many;
    type Router = ByKey<O::In, S>;
    const PARTITIONING: Partitioning = Partitioning::Hash;

    fn make(&self) -> O {
        self.operator.clone()
    }

    fn side(&self, _cx: &mut BuildContext<'_>) -> Nowhere {
        Nowhere
    }

    fn router(&self, node: NodeId) -> impl Fn(Lanes<O::In>, usize) -> ByKey<O::In, S> + Send + 'static {
        let key = self.key.clone();
        move |lanes, _replica| ByKey::new(lanes, key.clone(), node)
    }
}

/// Clones an operator with a way out by the side, which leads to an edge.
pub(crate) struct Beside<O> {
    pub(super) operator: O,
    pub(super) edge: EdgeId,
}

impl<O: Stage + Clone> Factory for Beside<O> {
    type Operator = O;
    type Side = RoundRobin<O::Side>;
    type Replicas = Many;
    type Router = RoundRobin<O::In>;

    fn make(&self) -> O {
        self.operator.clone()
    }

    fn side(&self, cx: &mut BuildContext<'_>) -> RoundRobin<O::Side> {
        cx.round_robin(self.edge)
    }

    fn router(&self, _node: NodeId) -> impl Fn(Lanes<O::In>, usize) -> RoundRobin<O::In> + Send + 'static {
        RoundRobin::new
    }
}

/// Makes windows as another factory does, with their late records set apart, on an edge.
pub struct Apart<F> {
    pub(super) factory: F,
    pub(super) edge: EdgeId,
}
opaque!(Apart<F>);

impl<W: OpenWindows, F: Factory<Operator = Windows<W, Dropped>>> Factory for Apart<F> {
    type Operator = Windows<W, SetApart>;
    type Side = RoundRobin<SideOf<Self>>;
    type Replicas = F::Replicas;
    type Router = F::Router;
    const PARTITIONING: Partitioning = F::PARTITIONING;

    fn make(&self) -> Self::Operator {
        self.factory.make().with_late(SetApart)
    }

    fn side(&self, cx: &mut BuildContext<'_>) -> Self::Side {
        cx.round_robin(self.edge)
    }

    fn router(&self, node: NodeId) -> impl Fn(Lanes<InOf<Self>>, usize) -> Self::Router + Send + 'static {
        self.factory.router(node)
    }
}
