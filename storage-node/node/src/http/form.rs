//! Multipart forms, read as streams: opening them, the bytes of a part, and reading the rest after an error.

use axum::{
    body::Body,
    extract::{FromRequest, Multipart, Request, multipart::Field},
    http::header,
};
use bytes::{Bytes, BytesMut};

use super::{body::BodyWatch, disposition::Disposition, error::HttpError};

/// After an error at most this much of the rest is read, so that the client reaches the answer.
const MAX_DRAINED_BYTES: usize = 64 << 20;

pub(super) async fn open(request: Request<Body>) -> Result<Multipart, HttpError> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("multipart/form-data")) {
        return Err(HttpError::bad_request("an upload is a form: Content-Type must be multipart/form-data"));
    }
    let no_boundary = |_| HttpError::bad_request("the Content-Type multipart/form-data has no valid boundary");
    Multipart::from_request(request, &()).await.map_err(no_boundary)
}

/// The next part with its names; `None` at the end of the form.
pub(super) async fn next_field<'a>(
    form: &'a mut Multipart,
    watch: &BodyWatch,
) -> Result<Option<(Disposition, Field<'a>)>, HttpError> {
    let Some(field) = form.next_field().await.map_err(|error| watch.explain(error.body_text()))? else {
        return Ok(None);
    };
    watch.used();
    let disposition = field.headers().get(header::CONTENT_DISPOSITION);
    let disposition = Disposition::parse(disposition.map_or(&[][..], |value| value.as_bytes()));
    Ok(Some((disposition, field)))
}

pub(super) async fn next_bytes(field: &mut Field<'_>, watch: &BodyWatch) -> Result<Option<Bytes>, HttpError> {
    let bytes = field.chunk().await.map_err(|error| watch.explain(error.body_text()))?;
    watch.used();
    Ok(bytes)
}

/// The whole of a short part; `None` if it has more than `limit` bytes.
pub(super) async fn read_short(
    mut field: Field<'_>,
    watch: &BodyWatch,
    limit: usize,
) -> Result<Option<Bytes>, HttpError> {
    let mut all = BytesMut::new();
    while let Some(bytes) = next_bytes(&mut field, watch).await? {
        if all.len() + bytes.len() > limit {
            return Ok(None);
        }
        all.extend_from_slice(&bytes);
    }
    Ok(Some(all.freeze()))
}

/// Reads over a part that has no use.
pub(super) async fn skip(mut field: Field<'_>, watch: &BodyWatch) -> Result<(), HttpError> {
    while next_bytes(&mut field, watch).await?.is_some() {}
    Ok(())
}

/// Reads the rest of the form after an error, within limits. Stops if the client stalls or the form is malformed.
pub(super) async fn drain(mut form: Multipart, watch: &BodyWatch) {
    let mut drained = 0;
    while let Ok(Some(mut field)) = form.next_field().await {
        watch.used();
        while let Ok(Some(bytes)) = next_bytes(&mut field, watch).await {
            drained += bytes.len();
            if drained > MAX_DRAINED_BYTES {
                return;
            }
        }
    }
}
