//! Writing: adding a batch (`put`), the segments that are being filled (`segment_writer`), and the space limits
//! (`space`).

pub(crate) mod put;
pub(crate) mod segment_writer;
pub(crate) mod space;
