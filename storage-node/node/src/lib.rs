//! A storage node as a library: the ring's driver, three holders of every chunk, the planes on 5057 to 5059, and the life
//! of a node from its first word to its last.

pub mod drain;
pub mod driver;
pub mod files;
pub mod http;
pub mod lifecycle;
pub mod mutual_exclusion;
pub mod node;
pub mod replica;
pub mod scrub;
pub mod status;
