//! Reading: records by their locations, the contents of each segment, and the queries built on the two.
//!
//! | file | its idea |
//! |---|---|
//! | `spans` | get; neighbouring records read with one call, damaged ones dropped |
//! | `catalog` | the contents of each segment, page by page |
//! | `list` | the contents of an arc by name |
//! | `verify` | reading copies for `check` |
//! | `comparison` | the queries for reconciling two nodes: ids of arcs, records, confirmed copies |

pub(crate) mod catalog;
pub(crate) mod comparison;
pub(crate) mod list;
pub(crate) mod spans;
pub(crate) mod verify;
