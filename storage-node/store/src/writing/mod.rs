//! Writing: adding a batch (`put`), the segments that are being filled (`segment_writer`), and the space there is for
//! more (`space`).

pub mod put;
pub mod segment_writer;
pub mod space;
