//! The layers, each by itself. Apart from them, as the models compile the layers with primitives of their own.

mod flight;
mod key;
mod outage;
mod turn;
