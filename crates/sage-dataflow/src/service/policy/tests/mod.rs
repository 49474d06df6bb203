//! The layers, each by itself. Apart from them, as the models compile the layers with primitives of their own.

mod outage;
mod turn;
