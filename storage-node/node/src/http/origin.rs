//! Refuses what a web page makes the browser of a person send who can reach this node.
//!
//! A page of any site can send simple requests to any address, so a request that changes something must not come from
//! another origin. And a site can let its own name resolve to this node's address, after which the browser takes both
//! for one origin; so the name in `Host` must be one that a stranger cannot own. Programs send neither header, or the
//! address that they connect to.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, Request, StatusCode, Uri, Version, header, uri::Authority};

use super::error::HttpError;

/// Ends of names that nobody can register.
const PRIVATE_ENDS: [&str; 4] = [".localhost", ".local", ".internal", ".home.arpa"];
/// A browser's head has some KiB. The server's buffer, which is larger for the sake of bodies, bounds it only at 1 MiB.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Checks the head of a request to a node that has these `names` besides its address.
pub(super) fn check<B>(request: &Request<B>, names: &[String]) -> Result<(), HttpError> {
    let headers = request.headers();
    if head_bytes(request.uri(), headers) > MAX_HEAD_BYTES {
        let text = format!("the head of the request has more than {MAX_HEAD_BYTES} bytes");
        return Err(HttpError::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text));
    }
    let host = host(request)?;
    if let Some(host) = &host
        && !is_own_name(host.host(), names)
    {
        return Err(forbidden(format!(
            "this node does not know the name {}; use its address, or start it with --host-name {}",
            host.host(),
            host.host()
        )));
    }
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    if reads { Ok(()) } else { check_origin(headers, host.as_ref()) }
}

fn head_bytes(uri: &Uri, headers: &HeaderMap) -> usize {
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    path + headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>()
}

/// The authority that was requested; `None` for a request of HTTP/1.0 without one.
fn host<B>(request: &Request<B>) -> Result<Option<Authority>, HttpError> {
    if request.version() == Version::HTTP_11 && !request.headers().contains_key(header::HOST) {
        return Err(HttpError::bad_request("a request of HTTP/1.1 has a header Host"));
    }
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.clone()));
    }
    let Some(host) = request.headers().get(header::HOST) else { return Ok(None) };
    let parsed = Authority::try_from(host.as_bytes());
    parsed.map(Some).map_err(|_| HttpError::bad_request("the header Host is not a host"))
}

/// True for addresses, for names without a dot, which are no names of the Internet, and for those that end as private
/// names do.
fn is_own_name(host: &str, names: &[String]) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    let is_address = host.parse::<IpAddr>().is_ok();
    let is_private = !host.contains('.') || PRIVATE_ENDS.iter().any(|end| host.ends_with(end));
    is_address || is_private || names.iter().any(|name| name.eq_ignore_ascii_case(&host))
}

fn check_origin(headers: &HeaderMap, host: Option<&Authority>) -> Result<(), HttpError> {
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return Err(forbidden("a page of another site may not change anything here".to_owned()));
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let from = origin.split_once("://").map(|(_, authority)| authority);
    if from.is_some_and(|from| host.is_some_and(|host| host.as_str().eq_ignore_ascii_case(from))) {
        return Ok(());
    }
    Err(forbidden(format!("a page of {origin:?} may not change anything here")))
}

fn forbidden(text: String) -> HttpError {
    HttpError::new(StatusCode::FORBIDDEN, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn status(method: &str, headers: &[(&str, &str)]) -> u16 {
        let request = headers
            .iter()
            .fold(Request::builder().method(method).uri("/x"), |request, (name, value)| request.header(*name, *value));
        let names = ["files.example.org".to_owned()];
        check(&request.body(()).unwrap(), &names).map_or_else(|error| error.status.as_u16(), |()| 200)
    }

    #[test]
    fn only_names_that_no_stranger_can_own_are_accepted() {
        for host in ["10.0.0.1:5058", "10.0.0.1", "[::1]:5058", "localhost:5058", "node1", "a.internal", "b.local:1"] {
            assert_eq!(status("GET", &[("host", host)]), 200, "{host}");
        }
        assert_eq!(status("GET", &[("host", "FILES.example.org.:5058")]), 200);
        for host in ["evil.example", "evil.example:5058", "10.0.0.1.evil.example", "files.example.org.evil.example"] {
            assert_eq!(status("GET", &[("host", host)]), 403, "{host}");
        }
        assert_eq!(status("GET", &[]), 400);
        assert_eq!(status("GET", &[("host", "a b")]), 400);
    }

    /// The story: any web page could drain a node.
    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let own = ("host", "10.0.0.1:5058");
        for foreign in [
            ("origin", "http://evil.example"),
            ("origin", "http://10.0.0.1:8000"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
        ] {
            assert_eq!(status("POST", &[own, foreign]), 403, "{foreign:?}");
            assert_eq!(status("DELETE", &[own, foreign]), 403, "{foreign:?}");
            assert_eq!(status("GET", &[own, foreign]), 200, "{foreign:?}");
        }
        assert_eq!(status("POST", &[own]), 200);
        assert_eq!(status("POST", &[own, ("origin", "http://10.0.0.1:5058"), ("sec-fetch-site", "same-origin")]), 200);
    }

    #[test]
    fn a_head_is_bounded() {
        let long = "x".repeat(MAX_HEAD_BYTES);
        assert_eq!(status("GET", &[("host", "a"), ("cookie", &long)]), 431);
    }
}
