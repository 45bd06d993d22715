//! Writing: adding a batch (`put`), comparing what is sent again (`same_bytes`), the segments that are being filled
//! (`segment_writer`), and the space limits (`space`).

pub(crate) mod put;
mod same_bytes;
pub(crate) mod segment_writer;
pub(crate) mod space;
