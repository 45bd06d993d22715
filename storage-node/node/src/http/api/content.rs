//! `POST /api/key/KEY`: a file's content within JSON, as text where it is UTF-8 and as base64 where not.
//!
//! Which of both it is shows only at the end of the file, so the file is read whole before the answer begins. Therefore
//! its length is limited, and its bytes take room among the answers of this node. The JSON is made while it is sent.

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use chordfs_types::fs_error::FsError;
use futures_util::{StreamExt, stream};
use percent_encoding::percent_decode_str;

use super::key;
use crate::{
    files::{PathTarget, ReadableFile},
    http::{answer_room::AnswerRoom, error::HttpError, files::FilesState, uri::encode_path},
};

/// The longest content within JSON.
const MAX_CONTENT_BYTES: u64 = 16 << 20;
/// How much is encoded at a time: a multiple of three, so that the pieces of base64 join.
const PIECE_BYTES: usize = 48 << 10;

pub(super) async fn content(
    State(files): State<FilesState>,
    Extension(answers): Extension<AnswerRoom>,
    uri: Uri,
) -> Result<Response, HttpError> {
    let encoded = uri.path().strip_prefix("/api/key/").unwrap_or_default();
    // Other than in a path of plain HTTP, an encoded slash is a slash: programs encode the key as a whole.
    let key: Vec<u8> = percent_decode_str(encoded).collect();
    let path = key::parse(&key)?;
    let file = match files.service.open(&path).await {
        Ok(PathTarget::File(file)) if file.chunk.is_none() => *file,
        Ok(PathTarget::Directory(_)) => {
            let text = "the key is the path of a folder; POST /api/list_keys lists the files in it";
            return Err(HttpError::new(StatusCode::CONFLICT, text).about(&key::shown(&key)));
        }
        Ok(PathTarget::File(_)) | Err(FsError::NoEntry | FsError::NotDirectory) => {
            return Err(HttpError::new(StatusCode::NOT_FOUND, "there is no such file").about(&key::shown(&key)));
        }
        Err(error) => return Err(error.into()),
    };
    if file.size() > MAX_CONTENT_BYTES {
        let (size, path) = (file.size(), encode_path(&path));
        let text = format!("the file has {size} bytes, at most {MAX_CONTENT_BYTES} fit into JSON; use GET {path}");
        return Err(HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    let room = answers.reserve(file.size() as usize).await.ok_or_else(overloaded)?;
    let body = FileContent::new(read(file).await?).into_body();
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, room.around(body)).into_response())
}

fn overloaded() -> HttpError {
    let text =
        "this node found no room for the answer: too many bytes are under way; send the request again in a second";
    HttpError::new(StatusCode::SERVICE_UNAVAILABLE, text)
}

async fn read(file: ReadableFile) -> Result<Vec<u8>, FsError> {
    let size = file.size();
    let mut all = Vec::with_capacity(size as usize);
    let mut batches = file.stream(0..size).await?;
    while let Some(batch) = batches.next().await {
        all.extend_from_slice(&batch?);
    }
    Ok(all)
}

enum FileContent {
    Text(String),
    Binary(Vec<u8>),
}

impl FileContent {
    fn new(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Binary(error.into_bytes()),
        }
    }

    fn into_body(self) -> Body {
        let encoding = if matches!(self, Self::Text(_)) { "utf-8" } else { "base64" };
        let start = format!(r#"{{"success":"true","encoding":"{encoding}","content":""#);
        let pieces = stream::unfold((self, 0), |(content, from)| async move {
            let (piece, to) = content.piece(from)?;
            Some((piece, (content, to)))
        });
        let all = stream::once(async { start }).chain(pieces).chain(stream::once(async { r#""}"#.to_owned() }));
        Body::from_stream(all.map(|piece| Ok::<_, std::convert::Infallible>(Bytes::from(piece))))
    }

    /// The encoded piece from byte `from` on, and where the next one begins.
    fn piece(&self, from: usize) -> Option<(String, usize)> {
        match self {
            Self::Text(text) => {
                let rest = text.get(from..).filter(|rest| !rest.is_empty())?;
                let piece = &rest[..rest.floor_char_boundary(PIECE_BYTES)];
                let quoted = serde_json::Value::from(piece).to_string();
                Some((quoted[1..quoted.len() - 1].to_owned(), from + piece.len()))
            }
            Self::Binary(bytes) => {
                let rest = bytes.get(from..).filter(|rest| !rest.is_empty())?;
                let piece = &rest[..rest.len().min(PIECE_BYTES)];
                Some((STANDARD.encode(piece), from + piece.len()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(bytes: &[u8]) -> String {
        let content = FileContent::new(bytes.to_vec());
        let (mut all, mut from) = (String::new(), 0);
        while let Some((piece, to)) = content.piece(from) {
            all += &piece;
            from = to;
        }
        all
    }

    #[test]
    fn pieces_of_text_join_between_characters() {
        let text = "é\"\n\u{1}".repeat(PIECE_BYTES);
        assert_eq!(serde_json::from_str::<String>(&format!("\"{}\"", joined(text.as_bytes()))).unwrap(), text);
        assert_eq!(joined(b""), "");
    }

    #[test]
    fn pieces_of_base64_join() {
        for len in [1, 2, 3, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES + 2] {
            let bytes = vec![0xff; len];
            assert_eq!(STANDARD.decode(joined(&bytes)).unwrap(), bytes, "{len}");
        }
    }
}
