//! Model checking: the lock-free parts compiled against loom, the waiting parts against shuttle.
//!
//! Each module includes the engine's own source file and gives it, as `super::sync`, the checker's primitives.

mod beside;
mod dealer;
mod feedback;
mod flight;
mod gate;
mod kept;
mod lane;
mod life;
mod policy;
mod rendezvous;
mod requests;
mod store;
mod under_loom;
mod under_shuttle;
mod wakes;
