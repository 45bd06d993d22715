//! Encodes and decodes MessagePack-RPC messages.
//!
//! ```text
//! request      [0, id, method, params]
//! response     [1, id, error, result]     error nil: success
//! notification [2, method, params]
//! ```
//!
//! Peers differ in how they encode text: old ones have a single raw type for any bytes, newer ones use `str` or `bin`.
//! So a method is accepted as either and need not be UTF-8. Text is sent as `str`, which all peers can read.

use bytes::{Buf, Bytes, BytesMut};
use rmpv::{Value, ValueRef};
use tokio_util::codec::Decoder;

use super::{
    RpcLimits,
    skip::{FrameError, Skipper},
};

const REQUEST: u64 = 0;
const RESPONSE: u64 = 1;
const NOTIFICATION: u64 = 2;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum RpcMessage {
    Request {
        id: u64,
        method: String,
        params: Vec<Value>,
    },
    /// A malformed request with a valid id, which is answered with this error.
    BadRequest {
        id: u64,
        reason: &'static str,
    },
    Response {
        id: u64,
        result: Result<Value, Value>,
    },
    Notification {
        method: String,
        params: Vec<Value>,
    },
}

impl RpcMessage {
    pub(super) fn encode(self) -> Bytes {
        let frame = Value::Array(match self {
            Self::Request { id, method, params } => {
                vec![REQUEST.into(), id.into(), method.into(), Value::Array(params)]
            }
            Self::BadRequest { id, reason } => vec![RESPONSE.into(), id.into(), reason.into(), Value::Nil],
            Self::Response { id, result: Ok(value) } => vec![RESPONSE.into(), id.into(), Value::Nil, value],
            Self::Response { id, result: Err(error) } => {
                vec![RESPONSE.into(), id.into(), or_text(error), Value::Nil]
            }
            Self::Notification { method, params } => {
                vec![NOTIFICATION.into(), method.into(), Value::Array(params)]
            }
        });
        let mut bytes = Vec::with_capacity(64);
        rmpv::encode::write_value(&mut bytes, &frame).expect("writing to memory does not fail");
        bytes.into()
    }

    fn from_value(frame: ValueRef<'_>) -> Result<Self, FrameError> {
        let ValueRef::Array(parts) = frame else { return Err(FrameError::NotRpc("a message is an array")) };
        match (parts.first().and_then(ValueRef::as_u64), &parts[..]) {
            (Some(REQUEST), [_, id, method, params]) => request(id, method, params),
            (Some(RESPONSE), [_, id, error, result]) => response(id, error, result),
            (Some(NOTIFICATION), [_, method, params]) => notification(method, params),
            (Some(REQUEST..=NOTIFICATION), _) => Err(FrameError::NotRpc("a message of the wrong length")),
            _ => Err(FrameError::NotRpc("the first element is none of 0, 1, 2")),
        }
    }
}

/// Replaces a nil error, which would be read as success.
fn or_text(error: Value) -> Value {
    if error.is_nil() { "unknown error".into() } else { error }
}

fn request(id: &ValueRef<'_>, method: &ValueRef<'_>, params: &ValueRef<'_>) -> Result<RpcMessage, FrameError> {
    let id = id.as_u64().ok_or(FrameError::NotRpc("the id of a request is no unsigned integer"))?;
    Ok(match (text(method), params.as_array()) {
        (None, _) => RpcMessage::BadRequest { id, reason: "the method of a request is a string" },
        (_, None) => RpcMessage::BadRequest { id, reason: "the arguments of a request are an array" },
        (Some(method), Some(params)) => RpcMessage::Request { id, method, params: owned(params) },
    })
}

fn response(id: &ValueRef<'_>, error: &ValueRef<'_>, result: &ValueRef<'_>) -> Result<RpcMessage, FrameError> {
    let id = id.as_u64().ok_or(FrameError::NotRpc("the id of a response is no unsigned integer"))?;
    let result = if matches!(error, ValueRef::Nil) { Ok(result.to_owned()) } else { Err(error.to_owned()) };
    Ok(RpcMessage::Response { id, result })
}

fn notification(method: &ValueRef<'_>, params: &ValueRef<'_>) -> Result<RpcMessage, FrameError> {
    match (text(method), params.as_array()) {
        (Some(method), Some(params)) => Ok(RpcMessage::Notification { method, params: owned(params) }),
        _ => Err(FrameError::NotRpc("a notification has a method and an array of arguments")),
    }
}

fn owned(values: &[ValueRef<'_>]) -> Vec<Value> {
    values.iter().map(ValueRef::to_owned).collect()
}

fn text(value: &ValueRef<'_>) -> Option<String> {
    let bytes = match value {
        ValueRef::String(text) => text.into_bytes(),
        ValueRef::Binary(bytes) => bytes.to_vec(),
        _ => return None,
    };
    Some(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Decodes messages from a stream of bytes.
#[derive(Debug)]
pub(super) struct MessageDecoder {
    max_frame_bytes: usize,
    max_depth: usize,
    skipper: Skipper,
    /// Length of the last message.
    pub frame_bytes: usize,
}

impl MessageDecoder {
    pub(super) fn new(limits: &RpcLimits) -> Self {
        let RpcLimits { max_frame_bytes, max_depth, .. } = *limits;
        Self { max_frame_bytes, max_depth, skipper: Skipper::default(), frame_bytes: 0 }
    }

    /// The least length of the frame that has begun.
    pub(super) fn announced_bytes(&self) -> usize {
        self.skipper.announced_bytes()
    }
}

/// The reasons for which a connection's stream of messages ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("a frame was begun and not finished within {0:?}")]
    Stalled(std::time::Duration),
    #[error("the connection ended inside a frame")]
    Torn,
    /// The frame found no room in the process's budget of bytes, or had to give way to others.
    #[error("a frame of {0} bytes or more found no room: this process holds as much of its peers as it may")]
    Overloaded(usize),
}

impl Decoder for MessageDecoder {
    type Item = RpcMessage;
    type Error = StreamError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<RpcMessage>, StreamError> {
        let Some(end) = self.skipper.advance(buffer, self.max_frame_bytes, self.max_depth)? else { return Ok(None) };
        self.skipper = Skipper::default();
        let message = parse(&buffer[..end]);
        buffer.advance(end);
        self.frame_bytes = end;
        Ok(Some(message?))
    }
}

fn parse(mut frame: &[u8]) -> Result<RpcMessage, FrameError> {
    // The skipper has checked the depth already; the decoder counts a string as up to two more levels.
    let value = rmpv::decode::read_value_ref_with_max_depth(&mut frame, rmpv::decode::MAX_DEPTH)
        .map_err(|error| FrameError::NotMessagePack(error.to_string()))?;
    RpcMessage::from_value(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8]) -> Result<Option<RpcMessage>, StreamError> {
        MessageDecoder::new(&RpcLimits::default()).decode(&mut BytesMut::from(bytes))
    }

    fn value(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, value).unwrap();
        bytes
    }

    fn sample() -> Vec<RpcMessage> {
        let params = vec![Value::from(1), Value::from("text"), Value::Binary(vec![0xff; 5000]), Value::Nil];
        vec![
            RpcMessage::Request { id: 7, method: "find_successor".into(), params: params.clone() },
            RpcMessage::Response { id: u64::from(u32::MAX), result: Ok(Value::Array(params.clone())) },
            RpcMessage::Response { id: 1 << 40, result: Err(Value::from("no")) },
            RpcMessage::Notification { method: "feed".into(), params },
        ]
    }

    #[test]
    fn messages_are_decoded_from_any_pieces() {
        let bytes: Vec<u8> = sample().into_iter().flat_map(RpcMessage::encode).collect();
        for piece in [1, 2, 3, 100, 5001, bytes.len()] {
            let (mut decoder, mut buffer) = (MessageDecoder::new(&RpcLimits::default()), BytesMut::new());
            let mut seen = Vec::new();
            for bytes in bytes.chunks(piece) {
                buffer.extend_from_slice(bytes);
                seen.extend(std::iter::from_fn(|| decoder.decode(&mut buffer).unwrap()));
            }
            assert_eq!(seen, sample(), "in pieces of {piece}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_method_may_be_any_kind_of_string() {
        let with = |method: Value| {
            let frame = Value::Array(vec![0.into(), 1.into(), method, Value::Array(vec![])]);
            match decode(&value(&frame)).unwrap().unwrap() {
                RpcMessage::Request { method, .. } => method,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(with("create".into()), "create");
        assert_eq!(with(Value::Binary(b"create".to_vec())), "create");
        assert_eq!(with(Value::Binary(vec![b'a', 0xff])), "a\u{fffd}");
        let raw = decode(&[0x94, 0x00, 0x01, 0xa2, b'a', 0xff, 0x90]).unwrap();
        assert_eq!(raw, Some(RpcMessage::Request { id: 1, method: "a\u{fffd}".into(), params: vec![] }));
    }

    #[test]
    fn a_request_with_an_id_can_always_be_answered() {
        for bytes in [&[0x94, 0x00, 0x05, 0xc0, 0x90][..], &[0x94, 0x00, 0x05, 0xa1, b'a', 0xc0]] {
            assert!(matches!(decode(bytes), Ok(Some(RpcMessage::BadRequest { id: 5, .. }))), "{bytes:?}");
        }
    }

    #[test]
    fn a_malformed_message_is_an_error() {
        for bytes in [
            &[0x93, 0x01, 0x00, 0xc0][..],
            &[0x94, 0x00, 0xff, 0xa1, b'a', 0x90],
            &[0x94, 0x03, 0x00, 0xa1, b'a', 0x90],
            &[0x93, 0x02, 0xc0, 0x90],
            &[0x90],
            &[0x91, 0x00],
            &[0x80],
            b"GET / HTTP/1.1\r\n",
        ] {
            assert!(matches!(decode(bytes), Err(StreamError::Frame(FrameError::NotRpc(_)))), "{bytes:x?}");
        }
    }

    #[test]
    fn a_nil_error_is_not_read_as_success() {
        let bytes = RpcMessage::Response { id: 1, result: Err(Value::Nil) }.encode();
        assert!(matches!(decode(&bytes), Ok(Some(RpcMessage::Response { result: Err(_), .. }))));
    }

    #[test]
    fn depth_is_bounded_for_every_kind_of_nesting() {
        for marker in [&[0x91][..], &[0x81, 0xc0], &[0xdc, 0, 1], &[0xdf, 0, 0, 0, 1, 0xc0]] {
            assert!(matches!(decode(&marker.repeat(100_000)), Err(StreamError::Frame(FrameError::TooDeep { .. }))));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn mutated_frames_never_panic(which in 0usize..4, at in any::<prop::sample::Index>(), with: u8, cut: bool) {
            let mut bytes = sample().swap_remove(which).encode().to_vec();
            let at = at.index(bytes.len().min(40));
            bytes[at] = with;
            if cut {
                bytes.truncate(at + 1);
            }
            let _ = decode(&bytes);
        }
    }
}
