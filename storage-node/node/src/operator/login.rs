//! Logging in with a browser: a form takes the token, and a cookie keeps it for half a day.
//!
//! | request | answer |
//! |---|---|
//! | `GET /login` | the form |
//! | `POST /login`, a form with `token` | 303 to `/` with the cookie; 401 and the form again if the token is wrong |
//! | `POST /logout` | 303 to `/login`; the cookie is removed |
//!
//! The cookie is the token itself, so any node accepts it and nothing has to be stored. Scripts cannot read it
//! (`HttpOnly`), and other sites' pages do not send it (`SameSite=Strict`).

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use chordfs_types::operator::OperatorToken;
use maud::{DOCTYPE, Markup, html};
use serde::Deserialize;

use super::{
    accepted::AcceptedTokens,
    guard::{COOKIE, is_operator},
};
use crate::http::{body::read_small, error::HttpError, page_headers::page_headers};

const MAX_FORM_BYTES: usize = 4 << 10;
const BODY_SILENCE: Duration = Duration::from_secs(10);
const LOGGED_IN_SECONDS: u32 = 12 * 60 * 60;

#[derive(Deserialize)]
struct LoginForm {
    token: String,
}

/// The router has no fallback.
pub(crate) fn routes(tokens: AcceptedTokens) -> Router {
    Router::new().route("/login", get(show).post(login)).route("/logout", post(logout)).with_state(tokens)
}

async fn show(State(tokens): State<AcceptedTokens>, headers: HeaderMap) -> Response {
    page(None, is_operator(&headers, &tokens))
}

async fn login(State(tokens): State<AcceptedTokens>, body: Body) -> Result<Response, HttpError> {
    let body = read_small(body, MAX_FORM_BYTES, BODY_SILENCE).await?;
    let form: LoginForm = serde_urlencoded::from_bytes(&body)
        .map_err(|error| HttpError::bad_request(format!("the body must be a form with the field token: {error}")))?;
    let token = form.token.parse::<OperatorToken>();
    match token {
        Ok(token) if tokens.accepts(&token) => Ok(with_cookie(&token.reveal(), LOGGED_IN_SECONDS, "/")),
        Ok(_) => {
            Ok((StatusCode::UNAUTHORIZED, page(Some("No node of this ring has this token."), false)).into_response())
        }
        Err(expected) => Ok((StatusCode::UNAUTHORIZED, page(Some(expected), false)).into_response()),
    }
}

async fn logout() -> Response {
    with_cookie("", 0, "/login")
}

fn with_cookie(value: &str, seconds: u32, to: &str) -> Response {
    let cookie = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict");
    let mut cookie = HeaderValue::from_str(&cookie).expect("a token has only letters, digits and hyphens");
    cookie.set_sensitive(true);
    ([(header::SET_COOKIE, cookie)], Redirect::to(to)).into_response()
}

/// The page sets no `Referrer-Policy` of `no-referrer`: with it browsers send forms with `Origin: null`, which the
/// server refuses.
fn page(problem: Option<&str>, logged_in: bool) -> Response {
    let content = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Log in – chordfs" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/console.css";
            }
            body {
                main.log-in {
                    h1 { "chordfs console" }
                    @if let Some(problem) = problem { p role="alert" { (problem) } }
                    (form(logged_in))
                }
            }
        }
    };
    (page_headers("style-src 'self'; img-src data:"), Html(content.into_string())).into_response()
}

fn form(logged_in: bool) -> Markup {
    html! {
        @if logged_in {
            p { "You are logged in. " a href="/" { "To the console" } }
            form method="post" action="/logout" { button { "Log out" } }
        } @else {
            form method="post" action="/login" {
                label for="token" { "The operator's token" }
                input #token name="token" type="password" autocomplete="current-password" required autofocus;
                button { "Log in" }
            }
            p { "On the machine of any node, " code { "storage-node token" } " shows it." }
        }
    }
}
