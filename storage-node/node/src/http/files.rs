//! The file plane on 5058, for the old scripts, browsers and curl.
//!
//! | request | answer |
//! |---|---|
//! | `POST` or `PUT /upload`, multipart, field `files`, repeatable | 204; a file of that name is replaced |
//! | `GET /upload` | a page with a form |
//! | `GET /` or a directory | its entries, as a page or (`Accept: application/json`) as JSON |
//! | `PUT /PATH` | 201 for a new file, 204 for a replaced one; missing folders are made |
//! | `DELETE /PATH` | 204; a file or an empty folder is gone |
//! | `/api/...` | the calls for programs, see `api` |
//! | `GET /PATH` | the file, or a range of it; without such a file and with a last name `NAME_chunk_I`: that chunk |
//!
//! A file in the root whose name is a route of this port, such as `upload`, is read as `/%75pload`: no route is matched
//! by an encoded path, and the links in listings are written so.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, Method, Uri},
    response::{IntoResponse, Response},
    routing::get,
};

use super::{api, download, error::HttpError, listing, metrics, page, pool_events::PoolEvents, upload, uri, write};
use crate::files::{FileService, PathTarget};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesOptions {
    /// A request whose body makes no progress for this long is answered with 408.
    pub body_silence: Duration,
}

impl Default for FilesOptions {
    fn default() -> Self {
        Self { body_silence: Duration::from_secs(30) }
    }
}

#[derive(Clone)]
pub struct FilesState {
    pub service: FileService,
    pub options: FilesOptions,
    pub events: Arc<PoolEvents>,
}

/// Has no fallback, so it can be merged with other routers; `/{*path}` takes every GET that matches no other route.
pub fn files_router(service: FileService, options: FilesOptions, events: Arc<PoolEvents>) -> Router {
    let upload = get(page::upload_form).post(upload::upload).put(upload::upload);
    Router::new()
        .route("/upload", upload.layer(DefaultBodyLimit::disable()))
        .route("/", get(by_path))
        .route("/{*path}", get(by_path).put(write::put).delete(write::delete).layer(DefaultBodyLimit::disable()))
        .merge(api::routes())
        .layer(axum::middleware::from_fn(metrics::count_files))
        .with_state(FilesState { service, options, events })
}

async fn by_path(
    State(files): State<FilesState>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let path = uri::decode_path(uri.path())?;
    match files.service.open(&path).await? {
        PathTarget::Directory(attr) => {
            Ok(listing::list(&files, &path, attr.ino, &uri, &headers).await?.into_response())
        }
        PathTarget::File(file) => download::download(*file, &path, method == Method::HEAD, &headers).await,
    }
}
