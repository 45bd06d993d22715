//! Finds the end of a MessagePack value without building it.
//!
//! The bytes come from a peer, in pieces. The scan keeps its position between pieces, so a large frame is scanned once
//! and not again at each read. It checks depth, length and number of values from the headers alone, before memory is
//! allocated for the contents. The codec decodes the value.

use thiserror::Error;

/// A decoded value takes about 40 bytes of memory, an encoded one as little as one byte: this bounds the growth.
const MAX_VALUES: u64 = 1 << 16;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum FrameError {
    #[error("the frame is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the frame nests deeper than {limit} levels")]
    TooDeep { limit: usize },
    #[error("the frame holds more than {MAX_VALUES} values")]
    TooManyValues,
    #[error("not MessagePack: {0}")]
    NotMessagePack(String),
    #[error("not MessagePack-RPC: {0}")]
    NotRpc(&'static str),
}

/// The scan of one value. The next value needs a new one.
#[derive(Debug, Default)]
pub(super) struct Skipper {
    /// Position of the next header; beyond the available bytes while a long string is arriving.
    position: u64,
    /// The number of values that each open array or map still lacks.
    open: Vec<u64>,
    values: u64,
    begun: bool,
}

/// The bytes and values that a header announces.
enum Header {
    /// A value that contains no others, with its length in bytes, header included.
    Leaf(u64),
    Container {
        header_bytes: u64,
        values: u64,
    },
}

impl Skipper {
    /// Returns the length of the value once `bytes`, its beginning so far, holds all of it. Each call gets the same
    /// bytes or more.
    pub(super) fn advance(
        &mut self,
        bytes: &[u8],
        max_bytes: usize,
        max_depth: usize,
    ) -> Result<Option<usize>, FrameError> {
        while !self.done() {
            let Some(rest) = usize::try_from(self.position).ok().and_then(|start| bytes.get(start..)) else {
                return Ok(None);
            };
            let Some(header) = read_header(rest)? else { return Ok(None) };
            self.step(header, max_depth)?;
            if self.lower_bound() > max_bytes as u64 {
                return Err(FrameError::TooLarge { limit: max_bytes });
            }
        }
        Ok(Some(self.position as usize).filter(|&end| end <= bytes.len()))
    }

    /// A lower bound of the value's length, as far as its headers were scanned. It is the length for a value whose long
    /// part is one string.
    pub(super) fn announced_bytes(&self) -> usize {
        self.lower_bound() as usize
    }

    /// Each missing value takes at least one byte.
    fn lower_bound(&self) -> u64 {
        self.position.saturating_add(self.open.iter().sum())
    }

    fn done(&self) -> bool {
        self.begun && self.open.is_empty()
    }

    fn step(&mut self, header: Header, max_depth: usize) -> Result<(), FrameError> {
        self.begun = true;
        if let Some(lacking) = self.open.last_mut() {
            *lacking -= 1;
        }
        match header {
            Header::Leaf(bytes) => self.position += bytes,
            Header::Container { header_bytes, values } => {
                self.position += header_bytes;
                self.values += values;
                if self.values > MAX_VALUES {
                    return Err(FrameError::TooManyValues);
                }
                self.open.push(values);
                if self.open.len() > max_depth {
                    return Err(FrameError::TooDeep { limit: max_depth });
                }
            }
        }
        while self.open.last() == Some(&0) {
            self.open.pop();
        }
        Ok(())
    }
}

/// Reads a header; `None` while it is incomplete.
fn read_header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let Some(&marker) = bytes.first() else { return Ok(None) };
    let counted = |width: usize| length(bytes, width);
    let leaf = |width: usize, extra: u64| counted(width).map(|len| Header::Leaf(1 + width as u64 + extra + len));
    let container = |width: usize, per_item: u64| {
        counted(width).map(|len| Header::Container { header_bytes: 1 + width as u64, values: len * per_item })
    };
    let short = u64::from(marker & 0x0f);
    Ok(match marker {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Some(Header::Leaf(1)),
        0x80..=0x8f => Some(Header::Container { header_bytes: 1, values: 2 * short }),
        0x90..=0x9f => Some(Header::Container { header_bytes: 1, values: short }),
        0xa0..=0xbf => Some(Header::Leaf(1 + u64::from(marker & 0x1f))),
        0xc4 | 0xd9 => leaf(1, 0),
        0xc5 | 0xda => leaf(2, 0),
        0xc6 | 0xdb => leaf(4, 0),
        0xc7 => leaf(1, 1),
        0xc8 => leaf(2, 1),
        0xc9 => leaf(4, 1),
        0xcc | 0xd0 => Some(Header::Leaf(2)),
        0xcd | 0xd1 => Some(Header::Leaf(3)),
        0xca | 0xce | 0xd2 => Some(Header::Leaf(5)),
        0xcb | 0xcf | 0xd3 => Some(Header::Leaf(9)),
        0xd4..=0xd8 => Some(Header::Leaf(2 + (1 << (marker - 0xd4)))),
        0xdc => container(2, 1),
        0xdd => container(4, 1),
        0xde => container(2, 2),
        0xdf => container(4, 2),
        0xc1 => return Err(FrameError::NotMessagePack("the byte c1 is never used".to_owned())),
    })
}

/// The big-endian number of `width` bytes after the marker.
fn length(bytes: &[u8], width: usize) -> Option<u64> {
    let digits = bytes.get(1..1 + width)?;
    Some(digits.iter().fold(0, |sum, &digit| sum << 8 | u64::from(digit)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rmpv::Value;

    use super::*;

    const MIB: usize = 1 << 20;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f32>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,300}".prop_map(Value::from),
            proptest::collection::vec(any::<u8>(), 0..70_000).prop_map(Value::from),
            (any::<i8>(), proptest::collection::vec(any::<u8>(), 0..300))
                .prop_map(|(kind, data)| Value::Ext(kind, data)),
        ];
        leaf.prop_recursive(5, 60, 20, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
                proptest::collection::vec((inner.clone(), inner), 0..20).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_end_found_is_the_end_of_the_encoded_value(value in any_value(), pieces in 1usize..40) {
            let mut bytes = Vec::new();
            rmpv::encode::write_value(&mut bytes, &value).unwrap();
            let whole = bytes.len();
            bytes.push(0xc0);
            let mut skipper = Skipper::default();
            for end in (0..whole).step_by(whole.div_ceil(pieces)) {
                prop_assert_eq!(skipper.advance(&bytes[..end], 100 * MIB, 16), Ok(None));
            }
            prop_assert_eq!(skipper.advance(&bytes, 100 * MIB, 16), Ok(Some(whole)));
        }

        #[test]
        fn the_skipper_agrees_with_the_decoder_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut skipper = Skipper::default();
            if let Ok(Some(end)) = skipper.advance(&bytes, MIB, 16) {
                let mut rest = &bytes[..];
                rmpv::decode::read_value_ref_with_max_depth(&mut rest, 64).unwrap();
                prop_assert_eq!(end, bytes.len() - rest.len());
            }
        }
    }

    #[test]
    fn limits_are_checked_from_the_header_alone() {
        let advance = |bytes: &[u8]| Skipper::default().advance(bytes, MIB, 16);
        assert_eq!(advance(&[0xc6, 0x80, 0, 0, 0]), Err(FrameError::TooLarge { limit: MIB }));
        assert_eq!(advance(&[0xdd, 0xff, 0xff, 0xff, 0xff]), Err(FrameError::TooManyValues));
        assert_eq!(advance(&[0x91; 17]), Err(FrameError::TooDeep { limit: 16 }));
        assert_eq!(advance(&[0x91; 16]), Ok(None));
        assert!(matches!(advance(&[0xc1]), Err(FrameError::NotMessagePack(_))));
    }
}
