//! The check of every request to 5059 that changes something: an operator's certificate stands behind the connection,
//! or the request carries an operator's token, in the header `Authorization: Bearer TOKEN` or in the cookie that the
//! log-in page sets.
//!
//! A browser adds the cookie to whatever request a page makes it send, also for a page that another port of the same
//! host serves, such as a file that was uploaded to 5058: cookies and `SameSite` know no ports. So a request with the
//! cookie must come from a page of this very origin, and say so; programs send the header.

use std::time::SystemTime;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use chordfs_identity::Role;
use chordfs_log::info_limited;
use chordfs_net::transport::RemoteCaller;
use chordfs_types::operator::OperatorToken;

use super::accepted::AcceptedTokens;
use crate::http::error::HttpError;

/// The name of the cookie.
pub(super) const COOKIE: &str = "chordfs_operator";

/// Adds the check to all routes of `router`. Requests that only read pass.
pub(crate) fn guarded(router: Router, tokens: &AcceptedTokens) -> Router {
    router.route_layer(from_fn_with_state(tokens.clone(), check))
}

async fn check(State(tokens): State<AcceptedTokens>, request: Request, next: Next) -> Response {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
        return next.run(request).await;
    }
    let caller = request.extensions().get::<RemoteCaller>();
    let is_operator = caller.is_some_and(|caller| caller.role(SystemTime::now()) == Some(Role::Operator))
        // A browser shows the certificate for whatever page makes it send the request.
        && (!is_from_browser(request.headers()) || is_from_own_page(request.headers()));
    if !is_operator && let Err(refusal) = may_change(request.headers(), &tokens) {
        let challenge = [(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
        let unauthorized = refusal.status == StatusCode::UNAUTHORIZED;
        return if unauthorized { (challenge, refusal).into_response() } else { refusal.into_response() };
    }
    info_limited!(method = %request.method(), path = request.uri().path(), "an operator's request");
    next.run(request).await
}

/// True if the request carries a token that this node accepts.
pub(crate) fn is_operator(headers: &HeaderMap, tokens: &AcceptedTokens) -> bool {
    token(headers).is_some_and(|(token, _)| tokens.accepts(&token))
}

/// The token that a request carries, whether or not it is accepted.
pub(crate) fn request_token(headers: &HeaderMap) -> Option<OperatorToken> {
    token(headers).map(|(token, _)| token)
}

fn may_change(headers: &HeaderMap, tokens: &AcceptedTokens) -> Result<(), HttpError> {
    let unauthorized = |what: &str| {
        let text = format!(
            "{what}: this call changes the ring, so it needs the operator's token. On the machine of any node, \
             `storage-node token` shows it; send it as `Authorization: Bearer TOKEN`, or log in at /login with a browser"
        );
        Err(HttpError::new(StatusCode::UNAUTHORIZED, text))
    };
    match token(headers) {
        None if headers.contains_key(header::AUTHORIZATION) => unauthorized("this is no operator's token"),
        None => unauthorized("no token"),
        Some((token, _)) if !tokens.accepts(&token) => unauthorized("no node of this ring has this token"),
        Some((_, Carrier::Cookie)) if !is_from_own_page(headers) => Err(HttpError::new(
            StatusCode::FORBIDDEN,
            "a request with the log-in cookie must come from a page of this node; programs send the header Authorization",
        )),
        Some(_) => Ok(()),
    }
}

enum Carrier {
    Header,
    Cookie,
}

fn token(headers: &HeaderMap) -> Option<(OperatorToken, Carrier)> {
    match headers.get(header::AUTHORIZATION) {
        Some(value) => {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(())?;
            Some((token.parse().ok()?, Carrier::Header))
        }
        None => cookies(headers).find_map(|value| value.parse().ok()).map(|token| (token, Carrier::Cookie)),
    }
}

/// The values of all cookies with the token's name.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

fn is_from_browser(headers: &HeaderMap) -> bool {
    headers.contains_key("sec-fetch-site") || headers.contains_key(header::ORIGIN)
}

/// Whether the browser says that a page of this origin made the request. The server has compared a present `Origin`
/// with `Host` already (`http/origin`).
fn is_from_own_page(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site");
    site.map_or_else(|| headers.contains_key(header::ORIGIN), |site| site == "same-origin")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> (tempfile::TempDir, AcceptedTokens, String) {
        let dir = tempfile::tempdir().unwrap();
        let tokens = AcceptedTokens::start(dir.path().to_owned(), 1, ([127, 0, 0, 1], 5057).into()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("operator-token")).unwrap().trim().to_owned();
        (dir, tokens, text)
    }

    fn status(tokens: &AcceptedTokens, headers: &[(&'static str, String)]) -> u16 {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        may_change(&headers.collect(), tokens).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn only_a_token_of_the_ring_changes_anything() {
        let (_dir, tokens, text) = own();
        let header = |value: String| [("authorization", value)];
        assert_eq!(status(&tokens, &header(format!("Bearer {text}"))), 200);
        assert_eq!(status(&tokens, &header(format!("bearer {text}"))), 200);
        assert_eq!(status(&tokens, &[]), 401);
        let (_other, _, foreign) = own();
        for wrong in [format!("Bearer {foreign}"), text.clone(), format!("Basic {text}"), "Bearer x".into(), "".into()]
        {
            assert_eq!(status(&tokens, &header(wrong.clone())), 401, "{wrong}");
        }
    }

    /// A file that somebody has uploaded is a page of the same site, on port 5058: its requests carry the cookie.
    #[test]
    fn the_cookie_counts_only_from_a_page_of_this_origin() {
        let (_dir, tokens, text) = own();
        let cookie = ("cookie", format!("a=b; chordfs_operator={text}; c=d"));
        let with = |name: &'static str, value: &str| [cookie.clone(), (name, value.to_owned())];
        assert_eq!(status(&tokens, &with("sec-fetch-site", "same-origin")), 200);
        assert_eq!(
            status(&tokens, &with("origin", "http://10.0.0.1:5059")),
            200,
            "the server has compared it with Host"
        );
        for site in ["same-site", "cross-site", "none"] {
            assert_eq!(status(&tokens, &with("sec-fetch-site", site)), 403, "{site}");
        }
        assert_eq!(status(&tokens, std::slice::from_ref(&cookie)), 403);
        let (_other, _, foreign) = own();
        let wrong = [("cookie", format!("chordfs_operator={foreign}")), ("sec-fetch-site", "same-origin".into())];
        assert_eq!(status(&tokens, &wrong), 401);
    }
}
