//! Reading: records by their locations, what each segment holds, and the questions built on the two.
//!
//! | file | its idea |
//! |---|---|
//! | `spans` | get; neighbouring records read with one call, damaged ones dropped |
//! | `catalog` | what lies in each segment, page by page |
//! | `list` | the contents of an arc by name |
//! | `verify` | looking at copies for `check` |
//! | `comparison` | what two nodes need to become equal: ids of arcs, records, confirmed copies |

pub(crate) mod catalog;
pub(crate) mod comparison;
pub(crate) mod list;
pub(crate) mod spans;
pub(crate) mod verify;
