//! The rules that keep the house in order, as tests over the sources: who may import whom (`rooms`, `crates`), how we
//! write (`language`), that the log cannot be flooded (`logs`), and that documents name things that exist
//! (`documents`).
//!
//! They read files and never build anything, so a broken rule costs seconds to find.

mod crates;
mod documents;
mod language;
mod logs;
mod rooms;
mod sources;
