//! Failures of the API as JSON. This lies around everything else that a server does, so that also the refusals of the
//! checks before the routes, and of the router itself, have the form that programs expect.

use axum::{
    Json,
    extract::Request,
    http::{Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::PREFIX;
use crate::http::error::FailureText;

#[derive(Serialize)]
struct Failure {
    success: &'static str,
    error: FailureDetail,
}

#[derive(Serialize)]
struct FailureDetail {
    /// The HTTP status.
    code: u16,
    message: String,
}

/// Puts every failure of a path of the API into JSON; answers to other paths stay as they are.
pub(in crate::http) async fn failures_as_json(request: Request, next: Next) -> Response {
    if !request.uri().path().starts_with(PREFIX) {
        return next.run(request).await;
    }
    let method = request.method().clone();
    let response = next.run(request).await;
    let status = response.status();
    if status.is_client_error() || status.is_server_error() { as_json(&method, response) } else { response }
}

fn as_json(method: &Method, response: Response) -> Response {
    let (parts, _) = response.into_parts();
    let message = match parts.extensions.get::<FailureText>() {
        Some(text) => text.0.clone(),
        None => text_of_router(method, parts.status),
    };
    let error = FailureDetail { code: parts.status.as_u16(), message };
    let mut json = (parts.status, Json(Failure { success: "false", error })).into_response();
    for name in [header::RETRY_AFTER, header::CONNECTION] {
        json.headers_mut().extend(parts.headers.get(&name).cloned().map(|value| (name, value)));
    }
    json.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    json
}

/// The text for a failure that the router answers without one.
fn text_of_router(method: &Method, status: StatusCode) -> String {
    if status == StatusCode::METHOD_NOT_ALLOWED {
        return format!("this call is not made with {method}; GET /api/openapi.json describes all calls");
    }
    status.canonical_reason().unwrap_or("the request failed").to_lowercase()
}
