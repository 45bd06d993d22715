//! `POST /upload`: the files of a multipart form, each as a whole or as a chunk of another file.
//!
//! Nothing becomes visible before the whole form has been received and checked: files are stored without a name, and
//! chunks wait in memory. Only if more chunks arrive than may wait, those received so far are published earlier.

use std::collections::HashSet;

use axum::{
    extract::{Multipart, Request, State, multipart::Field},
    http::StatusCode,
};
use bytes::{Bytes, BytesMut};
use chordfs_types::{
    chunk::{ChunkName, MAX_CHUNK_BYTES},
    namespace::EntryName,
};

use super::{
    body::BodyWatch,
    error::HttpError,
    files::FilesState,
    form::{self, next_bytes},
};
use crate::files::{PublishMode, WholeUpload};

/// The field whose parts are files; others are ignored.
const FIELD: &[u8] = b"files";
/// Bytes of chunks that may wait for the end of their form.
const MAX_WAITING_BYTES: usize = 16 << 20;

pub(super) async fn upload(State(files): State<FilesState>, request: Request) -> Result<StatusCode, HttpError> {
    let (parts, body) = request.into_parts();
    let (body, watch) = BodyWatch::over(body, files.options.body_silence);
    let mut form = form::open(Request::from_parts(parts, body)).await?;
    let mut staged = StagedForm { files: &files, items: Vec::new(), waiting_bytes: 0, count: 0 };
    if let Err(error) = receive(&mut form, &watch, &mut staged).await {
        drop(staged);
        form::drain(form, &watch).await;
        return Err(error);
    }
    if staged.count == 0 {
        return Err(HttpError::bad_request("the form has no field `files` with a file"));
    }
    staged.finish().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn receive(form: &mut Multipart, watch: &BodyWatch, staged: &mut StagedForm<'_>) -> Result<(), HttpError> {
    loop {
        let Some((disposition, field)) = form::next_field(form, watch).await? else { return Ok(()) };
        if disposition.name.as_deref() != Some(FIELD) {
            form::skip(field, watch).await?;
            continue;
        }
        let name = disposition.file_name.ok_or_else(no_file_name)?;
        staged.stage(check_name(name)?, field, watch).await?;
    }
}

fn no_file_name() -> HttpError {
    HttpError::bad_request("the field `files` has no file name")
}

fn check_name(name: Vec<u8>) -> Result<EntryName, HttpError> {
    if name.is_empty() {
        return Err(no_file_name());
    }
    let name = EntryName::new(name).map_err(|error| HttpError::from(error).about("bad file name"))?;
    if has_bad_chunk_number(name.as_bytes()) {
        return Err(HttpError::bad_request(format!(
            "{name}: chunks are numbered NAME_chunk_1 to NAME_chunk_{}",
            u32::MAX
        )));
    }
    Ok(name)
}

/// True for a name in the form of a chunk's name whose number no chunk can have.
fn has_bad_chunk_number(name: &[u8]) -> bool {
    const MARK: &[u8] = b"_chunk_";
    let Some(at) = name.windows(MARK.len()).rposition(|window| window == MARK) else { return false };
    let digits = &name[at + MARK.len()..];
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) && ChunkName::parse(name).is_none()
}

enum StagedItem {
    Whole(EntryName, Box<WholeUpload>),
    Chunk(ChunkName, Bytes),
}

/// The items of a form received so far, which are not visible yet.
struct StagedForm<'a> {
    files: &'a FilesState,
    /// In the order of the form: of two files with one name the later one wins.
    items: Vec<StagedItem>,
    waiting_bytes: usize,
    count: usize,
}

impl StagedForm<'_> {
    async fn stage(&mut self, name: EntryName, field: Field<'_>, watch: &BodyWatch) -> Result<(), HttpError> {
        let about = |error| HttpError::from(error).about(&name.to_string());
        let item = match self.files.service.as_chunk(&name).await.map_err(about)? {
            Some(chunk) => self.stage_chunk(chunk, field, watch).await?,
            None => self.stage_whole(&name, field, watch).await?,
        };
        self.items.push(item);
        self.count += 1;
        if self.waiting_bytes > MAX_WAITING_BYTES {
            self.finish().await?;
        }
        Ok(())
    }

    async fn stage_whole(
        &self,
        name: &EntryName,
        mut field: Field<'_>,
        watch: &BodyWatch,
    ) -> Result<StagedItem, HttpError> {
        let about = |error| HttpError::from(error).about(&name.to_string());
        let mut whole = self.files.service.begin_upload(std::slice::from_ref(name)).await.map_err(about)?;
        while let Some(bytes) = next_bytes(&mut field, watch).await? {
            whole.write(bytes).await.map_err(about)?;
        }
        whole.complete().await.map_err(about)?;
        Ok(StagedItem::Whole(name.clone(), Box::new(whole)))
    }

    async fn stage_chunk(
        &mut self,
        chunk: ChunkName,
        mut field: Field<'_>,
        watch: &BodyWatch,
    ) -> Result<StagedItem, HttpError> {
        let mut data = BytesMut::new();
        while let Some(bytes) = next_bytes(&mut field, watch).await? {
            if data.len() + bytes.len() > MAX_CHUNK_BYTES as usize {
                let text = format!("{chunk}: a chunk has at most {MAX_CHUNK_BYTES} bytes");
                return Err(HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, text));
            }
            data.extend_from_slice(&bytes);
        }
        self.waiting_bytes += data.len();
        Ok(StagedItem::Chunk(chunk, data.freeze()))
    }

    /// Publishes everything staged so far.
    async fn finish(&mut self) -> Result<(), HttpError> {
        self.waiting_bytes = 0;
        let items = std::mem::take(&mut self.items);
        self.check_chunks(&items).await?;
        for item in items {
            let (name, stored) = match item {
                StagedItem::Whole(name, whole) => {
                    let stored = whole.publish(std::slice::from_ref(&name), PublishMode::Replace).await;
                    (name.to_string(), stored.map(drop))
                }
                StagedItem::Chunk(chunk, data) => {
                    (chunk.to_string(), self.files.service.upload_chunk(&chunk, data).await)
                }
            };
            stored.map_err(|error| HttpError::from(error).about(&name))?;
        }
        Ok(())
    }

    /// Checks, before the first of several items is stored, that the chunks among them would be accepted. A single item
    /// is checked when it is stored.
    async fn check_chunks(&self, items: &[StagedItem]) -> Result<(), HttpError> {
        if items.len() == 1 {
            return Ok(());
        }
        let mut restarted = HashSet::new();
        for item in items {
            let StagedItem::Chunk(chunk, data) = item else { continue };
            // If the form has a chunk 1 of this file further up, that decides how long this chunk may be, so this one
            // is checked when it is stored.
            if !restarted.contains(&chunk.file) {
                let checked = self.files.service.check_chunk(chunk, data.len()).await;
                checked.map_err(|error| HttpError::from(error).about(&chunk.to_string()))?;
            }
            if chunk.index == 1 {
                restarted.insert(chunk.file.clone());
            }
        }
        Ok(())
    }
}
