//! The callers of each call: one table for all three ports.
//!
//! | file | its idea |
//! |---|---|
//! | `callers` | kinds of callers, as sets |
//! | `table` | a row for each call: port, method, path, who may make it, what it does |
//! | `rows` | the table as data, for tests of a running node |
//! | `check` | the check of every call against its row; a call without a row is refused |
//!
//! What a caller may do *within* a call of the namespace is checked there (`chordfs_namespace`, `serve/access`). Calls
//! that need an operator are open to anybody here who may reach them: `operator/guard` asks for the token.

mod callers;
mod check;
mod rows;
mod table;

pub(crate) use self::check::{Plane, checked, may_call};
pub use self::rows::{Row, rows};
