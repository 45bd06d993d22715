//! `POST /api/list_keys`: the paths of all regular files as one JSON list, which is sent while the tree is walked.
//!
//! A namespace may have ten million files. A stream keeps the exact form of the answer, and the node holds some pages
//! of it whatever its length. If the walk fails in between, the connection is cut off, so no program takes a part for
//! the whole. Bytes of names that are not UTF-8 are replaced; the listings of `GET /PATH` have links to such files.

use axum::{
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use chordfs_log::warn_limited;
use chordfs_types::{
    fs_error::FsError,
    namespace::{FileKind, Ino},
};
use futures_util::{StreamExt, stream};

use crate::{
    files::{TreeWalk, WalkBatch},
    http::{error::HttpError, files::FilesState},
};

pub(super) async fn list_keys(State(files): State<FilesState>) -> Result<Response, HttpError> {
    let mut walk = files.service.walk(Ino::ROOT);
    // A namespace that does not answer is an error with its status, not a cut-off list.
    let first = walk.next_batch().await?.unwrap_or_default();
    let mut list = KeyList { is_begun: false };
    let start = r#"{"success":"true","keys":["#.to_owned() + &list.render(&first);
    let rest = stream::unfold(Some((walk, list)), next_piece);
    let pieces = stream::once(async { Ok(start) }).chain(rest);
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    let sent = pieces.filter(|piece| std::future::ready(!piece.as_ref().is_ok_and(String::is_empty)));
    Ok((headers, Body::from_stream(sent)).into_response())
}

type ListState = Option<(TreeWalk, KeyList)>;

async fn next_piece(state: ListState) -> Option<(Result<String, FsError>, ListState)> {
    let (mut walk, mut list) = state?;
    match walk.next_batch().await {
        Ok(Some(batch)) => Some((Ok(list.render(&batch)), Some((walk, list)))),
        Ok(None) => Some((Ok("]}".to_owned()), None)),
        Err(error) => {
            warn_limited!(%error, "a list of keys was cut off");
            Some((Err(error), None))
        }
    }
}

struct KeyList {
    /// True if the next key needs a comma in front.
    is_begun: bool,
}

impl KeyList {
    fn render(&mut self, batch: &WalkBatch) -> String {
        let folder: Vec<u8> = batch.folder.iter().flat_map(|name| [name.as_bytes(), b"/"].concat()).collect();
        let mut text = String::new();
        for file in batch.entries.iter().filter(|entry| entry.attr.kind == FileKind::File) {
            if std::mem::replace(&mut self.is_begun, true) {
                text.push(',');
            }
            let key = [&folder[..], file.name.as_bytes()].concat();
            text += &serde_json::Value::from(String::from_utf8_lossy(&key)).to_string();
        }
        text
    }
}
