//! One published table, one file.
pub mod load;
