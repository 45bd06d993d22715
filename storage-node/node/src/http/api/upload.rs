//! `POST /api/upload`: one file, as a form with the fields `key` and `file` in any order. Other fields are ignored.
//!
//! The file is stored while it arrives, without a name; it gets its name, and the folders above it are made, when the
//! whole form has been read. If `file` comes before `key`, its chunks are named after the part's file name.

use axum::{
    Json,
    extract::{Multipart, Request, State, multipart::Field},
    http::StatusCode,
};
use bytes::Bytes;
use chordfs_types::{chunk::FileName, fs_error::FsError, namespace::EntryName};

use super::{
    Success,
    key::{self, MAX_NEW_KEY_BYTES},
};
use crate::{
    files::{PublishMode, WholeUpload},
    http::{
        body::BodyWatch,
        error::HttpError,
        files::FilesState,
        form::{self, next_bytes},
    },
};

/// NAME of the chunks of a file that came before its key and without a file name.
const UNLABELLED: &str = "upload";

pub(super) async fn upload(State(files): State<FilesState>, request: Request) -> Result<Json<Success>, HttpError> {
    let (parts, body) = request.into_parts();
    let (body, watch) = BodyWatch::over(body, files.options.body_silence);
    let mut form = form::open(Request::from_parts(parts, body)).await?;
    let mut received = ReceivedForm { files: &files, key: None, upload: None };
    if let Err(error) = received.read(&mut form, &watch).await {
        drop(received);
        form::drain(form, &watch).await;
        return Err(error);
    }
    received.publish().await?;
    Ok(Json(Success::PLAIN))
}

struct ReceivedForm<'a> {
    files: &'a FilesState,
    key: Option<Vec<EntryName>>,
    upload: Option<WholeUpload>,
}

impl ReceivedForm<'_> {
    async fn read(&mut self, form: &mut Multipart, watch: &BodyWatch) -> Result<(), HttpError> {
        while let Some((disposition, field)) = form::next_field(form, watch).await? {
            match disposition.name.as_deref() {
                Some(b"key") if self.key.is_some() => return Err(repeated("key")),
                Some(b"key") => self.key = Some(read_key(field, watch).await?),
                Some(b"file") if self.upload.is_some() => return Err(repeated("file")),
                Some(b"file") => self.upload = Some(self.store(disposition.file_name, field, watch).await?),
                _ => form::skip(field, watch).await?,
            }
        }
        Ok(())
    }

    async fn store(
        &self,
        file_name: Option<Vec<u8>>,
        mut field: Field<'_>,
        watch: &BodyWatch,
    ) -> Result<WholeUpload, HttpError> {
        let mut upload = match &self.key {
            Some(path) => self.files.service.begin_upload(path).await,
            None => self.files.service.begin_unplaced_upload(label(file_name)).await,
        }
        .map_err(failed)?;
        while let Some(bytes) = next_bytes(&mut field, watch).await? {
            upload.write(bytes).await.map_err(failed)?;
        }
        upload.complete().await.map_err(failed)?;
        Ok(upload)
    }

    async fn publish(self) -> Result<(), HttpError> {
        let missing =
            |field| HttpError::bad_request(format!("the form has no field `{field}`; it needs `key` and `file`"));
        let path = self.key.ok_or_else(|| missing("key"))?;
        let upload = self.upload.ok_or_else(|| missing("file"))?;
        upload.publish(&path, PublishMode::Replace).await.map(drop).map_err(failed)
    }
}

async fn read_key(field: Field<'_>, watch: &BodyWatch) -> Result<Vec<EntryName>, HttpError> {
    match form::read_short(field, watch, MAX_NEW_KEY_BYTES).await? {
        Some(key) => key::parse(&key),
        None => Err(HttpError::bad_request(format!("the key has more than {MAX_NEW_KEY_BYTES} bytes"))),
    }
}

fn repeated(field: &str) -> HttpError {
    HttpError::bad_request(format!("the form has the field `{field}` twice; one call uploads one file"))
}

fn label(file_name: Option<Vec<u8>>) -> FileName {
    let given = file_name.and_then(|name| FileName::new(name).ok());
    given.unwrap_or_else(|| FileName::new(Bytes::from_static(UNLABELLED.as_bytes())).expect("it is short"))
}

fn failed(error: FsError) -> HttpError {
    match error {
        FsError::NotDirectory => {
            HttpError::new(StatusCode::CONFLICT, "a name above the file in its key is a file and no folder")
        }
        FsError::IsDirectory => HttpError::new(StatusCode::CONFLICT, "the key is the path of a folder"),
        error => error.into(),
    }
}
