//! The check of every call against its row.

use std::time::SystemTime;

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, Method, StatusCode},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use chordfs_log::warn_limited;
use chordfs_net::transport::RemoteCaller;

use super::{
    callers::CallerSet,
    table::{self, Rule},
};
use crate::{
    http::error::HttpError,
    identity::RevokedIdentities,
    operator::{AcceptedTokens, is_operator},
};

/// A port that speaks HTTP.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plane {
    Files,
    Admin,
}

impl Plane {
    fn rules(self) -> &'static [Rule] {
        match self {
            Self::Files => table::FILES,
            Self::Admin => table::ADMIN,
        }
    }
}

/// Adds the check to all routes of a port.
pub(crate) fn checked(router: Router, plane: Plane, revoked: RevokedIdentities, tokens: AcceptedTokens) -> Router {
    router.layer(from_fn_with_state(AccessCheck { plane, revoked, tokens }, check))
}

#[derive(Clone)]
struct AccessCheck {
    plane: Plane,
    revoked: RevokedIdentities,
    tokens: AcceptedTokens,
}

impl AccessCheck {
    /// What the request proves beside the connection: a browser has an operator's token and no certificate.
    fn vouched(&self, headers: &HeaderMap) -> CallerSet {
        match self.plane {
            Plane::Admin if is_operator(headers, &self.tokens) => CallerSet::OPERATOR,
            Plane::Admin | Plane::Files => CallerSet::NOBODY,
        }
    }
}

async fn check(State(access): State<AccessCheck>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<RemoteCaller>().cloned().unwrap_or(RemoteCaller::Unknown);
    // A path without a route is answered by the fallback, and changes nothing.
    let refusal = request.extensions().get::<MatchedPath>().and_then(|path| {
        let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
        let vouched = access.vouched(request.headers());
        refusal(access.plane.rules(), (method.as_str(), path.as_str()), &caller, vouched, &access.revoked)
    });
    match refusal {
        None => next.run(request).await,
        Some(text) => HttpError::new(StatusCode::FORBIDDEN, text).into_response(),
    }
}

/// Whether a caller may make a call on 5057. The error is for the caller.
pub(crate) fn may_call(caller: &RemoteCaller, method: &str, revoked: &RevokedIdentities) -> Result<(), String> {
    refusal(table::RING, ("call", method), caller, CallerSet::NOBODY, revoked).map_or(Ok(()), Err)
}

fn refusal(
    rules: &[Rule],
    (method, path): (&str, &str),
    caller: &RemoteCaller,
    vouched: CallerSet,
    revoked: &RevokedIdentities,
) -> Option<String> {
    if matches!(caller, RemoteCaller::Unchecked) {
        return None;
    }
    let is_own = |rule: &&Rule| rule.path == path && (rule.method == method || rule.method == "*");
    let Some(rule) = rules.iter().find(is_own) else {
        warn_limited!(call = format!("{method} {path}"), "refusing a call that the table of calls does not have");
        return Some(format!("{method} {path}: nobody may do this here"));
    };
    let is_revoked = revoked.contain(caller);
    if let RemoteCaller::Certified(owner) = caller
        && let Some(folder) = owner.identity.path.as_ref().filter(|_| !rule.bound)
    {
        warn_limited!(id = %owner.identity.id, call = format!("{method} {path}"), "refusing a call that reaches beyond the caller's folder");
        return Some(format!("{method} {path}: this identity is bound to the folder {folder}; mount it instead"));
    }
    let kind = if is_revoked { CallerSet::UNKNOWN } else { CallerSet::of(caller, SystemTime::now()) };
    if rule.callers.intersect(CallerSet::either(kind, vouched)) {
        return None;
    }
    let who = match caller {
        RemoteCaller::Certified(owner) => {
            let what = if is_revoked { "revoked, " } else { "" };
            format!("{} {:?} ({what}{})", owner.identity.role, owner.identity.name, owner.identity.id)
        }
        _ => kind.names(),
    };
    warn_limited!(who, call = format!("{method} {path}"), "refusing a call that this caller may not make");
    Some(format!("{method} {path} ({}) is for {}, and not for {who}", rule.effect, rule.callers.names()))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc, time::Duration};

    use chordfs_identity::{CertifiedIdentity, Role, new_identity};

    use super::*;

    fn certified(role: Role, expires: SystemTime) -> RemoteCaller {
        let identity = new_identity(role, "somebody", None).unwrap();
        RemoteCaller::Certified(Arc::new(CertifiedIdentity { identity, begins: SystemTime::UNIX_EPOCH, expires }))
    }

    /// Every kind of caller, by its name.
    fn callers() -> BTreeMap<String, RemoteCaller> {
        let later = SystemTime::now() + Duration::from_secs(3600);
        let certified = Role::ALL.map(|role| (role.name().to_owned(), certified(role, later)));
        let expired = super::tests::certified(Role::Node, SystemTime::now() - Duration::from_secs(1));
        let others = [("plain", RemoteCaller::Plain), ("unknown", RemoteCaller::Unknown), ("expired", expired)];
        certified.into_iter().chain(others.map(|(name, caller)| (name.to_owned(), caller))).collect()
    }

    /// The names of those who may make a call.
    fn allowed(rules: &[Rule], method: &str, path: &str) -> Vec<String> {
        let callers = callers().into_iter();
        callers
            .filter(|(_, caller)| {
                refusal(rules, (method, path), caller, CallerSet::NOBODY, &RevokedIdentities::default()).is_none()
            })
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn each_kind_of_call_is_for_those_who_need_it() {
        let cases: &[(&[Rule], &str, &str, &str)] = &[
            (
                table::RING,
                "call",
                "find_successor",
                "client metrics node operator plain read-only-client squashed-client squashed-read-only-client",
            ),
            (table::RING, "call", "join", "node operator"),
            (table::RING, "call", "chordfs_leave", "node"),
            (
                table::RING,
                "call",
                "chordfs_namespace",
                "client node operator read-only-client squashed-client squashed-read-only-client",
            ),
            (table::RING, "call", "chordfs_unheard_of", ""),
            (table::FILES, "POST", "/chunks/put", "client node operator squashed-client"),
            (
                table::FILES,
                "POST",
                "/chunks/get",
                "client node operator read-only-client squashed-client squashed-read-only-client",
            ),
            (table::FILES, "POST", "/chunks/delete", "node"),
            (table::FILES, "GET", "/{*path}", "client node operator plain read-only-client"),
            (table::FILES, "POST", "/upload", "client node operator plain"),
            (table::FILES, "DELETE", "/{*path}", "client node operator plain"),
            (table::FILES, "POST", "/api/anything", ""),
            (table::ADMIN, "POST", "/raft/vote", "node"),
            (table::ADMIN, "POST", "/raft/append", "node"),
            (
                table::ADMIN,
                "POST",
                "/identity",
                "client expired metrics node operator read-only-client squashed-client squashed-read-only-client unknown",
            ),
            (
                table::ADMIN,
                "GET",
                "/metrics",
                "client metrics node operator plain read-only-client squashed-client squashed-read-only-client",
            ),
            (table::ADMIN, "GET", "/chunks", "node operator"),
        ];
        for (rules, method, path, expected) in cases {
            assert_eq!(allowed(rules, method, path).join(" "), *expected, "{method} {path}");
        }
    }

    /// A browser that had logged in over TLS saw nothing, because it has no certificate.
    #[test]
    fn an_operators_token_makes_an_operator_of_a_caller_without_a_certificate() {
        let none = RevokedIdentities::default();
        let may = |call, vouched| refusal(table::ADMIN, call, &RemoteCaller::Unknown, vouched, &none).is_none();
        for call in [("GET", "/"), ("GET", "/status"), ("GET", "/identities")] {
            assert!(may(call, CallerSet::OPERATOR) && !may(call, CallerSet::NOBODY), "{call:?}");
        }
        assert!(!may(("POST", "/raft/vote"), CallerSet::OPERATOR));
    }

    #[test]
    fn without_identities_everybody_may_do_everything_as_before() {
        let none = RevokedIdentities::default();
        let may = |rules, call| refusal(rules, call, &RemoteCaller::Unchecked, CallerSet::NOBODY, &none);
        assert_eq!(may(table::ADMIN, ("POST", "/raft/vote")), None);
        assert_eq!(may(table::FILES, ("POST", "/unheard/of")), None);
    }

    #[test]
    fn who_is_bound_to_a_folder_gets_around_it_by_no_call() {
        let identity = new_identity(Role::Client, "somebody", Some("/projects")).unwrap();
        let expires = SystemTime::now() + Duration::from_secs(3600);
        let bound =
            RemoteCaller::Certified(Arc::new(CertifiedIdentity { identity, begins: SystemTime::UNIX_EPOCH, expires }));
        let allowed = |rules: &[Rule]| -> Vec<&str> {
            let none = RevokedIdentities::default();
            let may =
                |rule: &&Rule| refusal(rules, (rule.method, rule.path), &bound, CallerSet::NOBODY, &none).is_none();
            rules.iter().filter(may).map(|rule| rule.path).collect()
        };
        assert_eq!(
            allowed(table::FILES).join(" "),
            "/chunks/put /chunks/get /chunks/has /chunks/sync /chunks/secure /chunks/space"
        );
        assert_eq!(
            allowed(table::ADMIN).join(" "),
            "/healthz /readyz /identity /console.css /console.js /login /login"
        );
        let ring = "get_info find_successor get_predecessor get_successor chordfs_neighbours chordfs_keepers chordfs_namespace";
        assert_eq!(allowed(table::RING).join(" "), ring);
    }

    #[test]
    fn a_refusal_says_who_may() {
        let text = may_call(&RemoteCaller::Plain, "chordfs_leave", &RevokedIdentities::default()).unwrap_err();
        assert!(text.contains("chordfs_leave") && text.contains("is for nodes, and not for plain"), "{text}");
    }
}
