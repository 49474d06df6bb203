//! A memory: turns of conversations that are kept, recalled and erased.
//!
//! It stands on the log, the lists of words and the vectors of the embedded store. It knows nothing of language models.

mod alarm;
mod contents;
mod embedding;
mod entry;
mod erase;
mod error;
mod export;
mod inner;
mod live;
#[expect(clippy::module_inception, reason = "the main type lies in the file of its name")]
mod memory;
mod recall;
mod scope;
mod times;
mod turn;
mod window;
mod writing;

pub use erase::Receipt;
pub use error::MemoryError;
pub use export::Imported;
pub use memory::Memory;
pub use recall::{Parts, Recall, Recalled, Weights};
pub use scope::{MAX_NAME_BYTES, Scope};
pub use turn::{Change, MAX_ROLE_BYTES, NewTurn, Turn, Version};
pub use window::Window;
