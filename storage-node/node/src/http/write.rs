//! `PUT /PATH` and `DELETE /PATH`: a file as a whole, for programs that use plain HTTP.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
};
use chordfs_types::{fs_error::FsError, namespace::EntryName};
use futures_util::StreamExt;

use super::{body::BodyWatch, conditions::check_write, error::HttpError, files::FilesState, uri};
use crate::files::{PublishMode, read::entity_tag};

/// Stores the body under the path; missing folders are made. Returns 201 for a new file and 204 for a replaced one.
///
/// `If-None-Match: *` is exact: of two clients one fails. `If-Match` is checked before the body is read and again
/// before the file is replaced; a change between that look and the replacement goes unnoticed.
pub(super) async fn put(State(files): State<FilesState>, request: Request) -> Result<StatusCode, HttpError> {
    let (head, body) = request.into_parts();
    let path = target(&head.uri)?;
    if head.headers.contains_key(header::CONTENT_RANGE) {
        return Err(HttpError::bad_request("a part of a file cannot be put; send it whole, without Content-Range"));
    }
    check_condition(&files, &path, &head.headers).await?;
    let mut upload = files.service.begin_upload(&path).await.map_err(about_path)?;
    let (body, watch) = BodyWatch::over(body, files.options.body_silence);
    let mut body = body.into_data_stream();
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|error| watch.explain(error.to_string()))?;
        watch.used();
        upload.write(bytes).await.map_err(about_path)?;
    }
    upload.complete().await.map_err(about_path)?;
    check_condition(&files, &path, &head.headers).await?;
    let is_new_only = head.headers.get(header::IF_NONE_MATCH).is_some_and(|tags| tags == "*");
    let mode = if is_new_only { PublishMode::CreateOnly } else { PublishMode::Replace };
    match upload.publish(&path, mode).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Ok(StatusCode::CREATED),
        Err(FsError::Exists) if is_new_only => Err(precondition_failed()),
        Err(error) => Err(about_path(error)),
    }
}

/// Removes a file, or an empty folder.
pub(super) async fn delete(
    State(files): State<FilesState>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<StatusCode, HttpError> {
    let path = uri::decode_path(uri.path())?;
    check_condition(&files, &path, &headers).await?;
    files.service.remove(&path).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn target(uri: &Uri) -> Result<Vec<EntryName>, HttpError> {
    if uri.path().ends_with('/') {
        return Err(HttpError::bad_request("the path ends with a slash; PUT stores a file, and makes its folders"));
    }
    Ok(uri::decode_path(uri.path())?)
}

async fn check_condition(files: &FilesState, path: &[EntryName], headers: &HeaderMap) -> Result<(), HttpError> {
    if !headers.contains_key(header::IF_MATCH) && !headers.contains_key(header::IF_NONE_MATCH) {
        return Ok(());
    }
    let current = files.service.entry(path).await?.map(|attr| entity_tag(&attr, ""));
    if check_write(headers, current.as_deref()) { Ok(()) } else { Err(precondition_failed()) }
}

fn precondition_failed() -> HttpError {
    let text = "the file is not in the state that If-Match or If-None-Match asks for; read it again";
    HttpError::new(StatusCode::PRECONDITION_FAILED, text)
}

fn about_path(error: FsError) -> HttpError {
    match error {
        FsError::NotDirectory => HttpError::new(StatusCode::CONFLICT, "a name above the file in its path is no folder"),
        error => error.into(),
    }
}
