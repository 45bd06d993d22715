//! A row for each call.
//!
//! Paths are written as in the routes. A `GET` route also answers `HEAD`.

use chordfs_net::identity_client::IDENTITY_PATH;
use chordfs_types::{chunk_api::calls, compare_api::calls as compare_calls, namespace::calls::NAMESPACE};

use super::callers::CallerSet as C;
use crate::{driver::own, scrub::NAMESPACE_PATH};

#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub method: &'static str,
    pub path: &'static str,
    pub callers: C,
    /// Whether a caller may make it who is bound to a folder. What it reaches by the call is limited to the folder
    /// then.
    pub bound: bool,
    /// What a caller can achieve by it, for people who review this table.
    pub effect: &'static str,
}

const fn rule(method: &'static str, path: &'static str, callers: C, effect: &'static str) -> Rule {
    Rule { method, path, callers, bound: false, effect }
}

/// A call that callers may make, too, who are bound to a folder.
const fn within_folder(rule: Rule) -> Rule {
    Rule { bound: true, ..rule }
}

const READERS_AND_SCRIPTS: C = C::either(C::READERS, C::PLAIN);
const WRITERS_AND_SCRIPTS: C = C::either(C::WRITERS, C::PLAIN);
const CERTIFIED_AND_SCRIPTS: C = C::either(C::CERTIFIED, C::PLAIN);
const NODES_AND_SCRIPTS: C = C::either(C::NODE, C::PLAIN);

/// 5057, MessagePack-RPC.
pub(super) const RING: &[Rule] = &[
    within_folder(rule("call", "get_info", CERTIFIED_AND_SCRIPTS, "reads the node's position")),
    rule("call", "create", CERTIFIED_AND_SCRIPTS, "nothing: every node is in a ring"),
    within_folder(rule("call", "find_successor", CERTIFIED_AND_SCRIPTS, "finds the owner of a key")),
    within_folder(rule("call", "get_predecessor", CERTIFIED_AND_SCRIPTS, "reads the node's neighbour")),
    within_folder(rule("call", "get_successor", CERTIFIED_AND_SCRIPTS, "reads the node's neighbours")),
    rule("call", "notify", NODES_AND_SCRIPTS, "names a node that may precede this one, which is then asked itself"),
    rule("call", "stabilize", NODES_AND_SCRIPTS, "the node looks at its neighbours now"),
    rule("call", "check_predecessor", NODES_AND_SCRIPTS, "the node looks at its predecessor now"),
    rule("call", "join", C::INSIDE, "moves a node that is alone into a ring"),
    rule("call", "kill", C::either(C::INSIDE, C::PLAIN), "ends the process where --allow-kill was given"),
    within_folder(rule("call", own::NEIGHBOURS, CERTIFIED_AND_SCRIPTS, "reads the node's neighbours")),
    within_folder(rule("call", own::STORAGE_NODES, CERTIFIED_AND_SCRIPTS, "reads the node's neighbours that store")),
    rule("call", own::ROUTE, NODES_AND_SCRIPTS, "reads the next hops towards a key"),
    rule("call", own::LEAVE, C::NODE, "drops a neighbour that leaves"),
    rule("call", own::FOLLOWED, C::NODE, "names a node that has joined, which is then asked itself"),
    rule("call", own::LOAD, C::NODE, "reads how much the node holds"),
    rule("call", own::PLACE, C::NODE, "chooses the position of a new node"),
    within_folder(rule("call", NAMESPACE, C::MOUNTS, "reads and changes names, as the namespace allows the role")),
];

/// 5058, HTTP.
pub(super) const FILES: &[Rule] = &[
    within_folder(rule("POST", calls::PUT, C::WRITING_MOUNTS, "stores chunks")),
    within_folder(rule("POST", calls::GET, C::MOUNTS, "reads chunks")),
    within_folder(rule("POST", calls::HAS, C::MOUNTS, "asks which chunks are here, and whether they are sound")),
    within_folder(rule("POST", calls::SYNC, C::WRITING_MOUNTS, "makes chunks durable")),
    within_folder(rule("POST", calls::SECURE, C::WRITING_MOUNTS, "asks which chunks are durable")),
    within_folder(rule("GET", calls::SPACE, C::MOUNTS, "reads how much room is left")),
    rule("POST", calls::DELETE, C::NODE, "deletes versions that no file needs"),
    rule("GET", calls::LIST, C::INSIDE, "reads which chunks are here"),
    rule("GET", calls::DIGEST, C::INSIDE, "compares what two holders have"),
    rule("POST", compare_calls::DIGESTS, C::NODE, "compares what two holders have"),
    rule("POST", compare_calls::IDS, C::NODE, "compares what two holders have"),
    rule("POST", compare_calls::OFFER, C::NODE, "offers copies"),
    rule("POST", compare_calls::FETCH, C::NODE, "reads copies"),
    rule("POST", compare_calls::CONFIRM, C::NODE, "confirms copies"),
    rule("POST", compare_calls::GONE, C::NODE, "names copies that no file needs"),
    rule("GET", "/upload", READERS_AND_SCRIPTS, "the form"),
    rule("POST", "/upload", WRITERS_AND_SCRIPTS, "creates and replaces files"),
    rule("PUT", "/upload", WRITERS_AND_SCRIPTS, "creates and replaces files"),
    rule("GET", "/", READERS_AND_SCRIPTS, "the listing"),
    rule("GET", "/{*path}", READERS_AND_SCRIPTS, "reads files and listings"),
    rule("PUT", "/{*path}", WRITERS_AND_SCRIPTS, "creates and replaces a file"),
    rule("DELETE", "/{*path}", WRITERS_AND_SCRIPTS, "deletes a file"),
    rule("POST", "/api/upload", WRITERS_AND_SCRIPTS, "creates and replaces files"),
    rule("POST", "/api/list_keys", READERS_AND_SCRIPTS, "lists files"),
    rule("POST", "/api/key/{*key}", READERS_AND_SCRIPTS, "reads a file"),
    rule("GET", "/api/openapi.json", CERTIFIED_AND_SCRIPTS, "describes the calls"),
    rule("GET", "/api/events", CERTIFIED_AND_SCRIPTS, "follows the ring's members"),
    rule("*", "/api/", CERTIFIED_AND_SCRIPTS, "nothing: an unknown call"),
    rule("*", "/api/{*rest}", CERTIFIED_AND_SCRIPTS, "nothing: an unknown call"),
];

/// 5059, HTTP. The effect of a row with a token is for operators alone, whoever may try.
pub(super) const ADMIN: &[Rule] = &[
    within_folder(rule("GET", "/healthz", C::ANYONE, "whether the process lives")),
    within_folder(rule("GET", "/readyz", C::ANYONE, "whether the node serves")),
    rule("GET", "/status", CERTIFIED_AND_SCRIPTS, "reads the node's state"),
    rule("GET", "/ring", CERTIFIED_AND_SCRIPTS, "reads the ring's state"),
    rule("GET", "/metrics", CERTIFIED_AND_SCRIPTS, "reads the metrics"),
    rule("GET", "/history", CERTIFIED_AND_SCRIPTS, "reads the last half hour"),
    rule("GET", "/ring/history", CERTIFIED_AND_SCRIPTS, "reads the last half hour"),
    rule("GET", "/sessions", CERTIFIED_AND_SCRIPTS, "reads which mounts there are"),
    rule("GET", "/chunks", C::INSIDE, "reads which chunks are here"),
    rule("POST", "/notify_join_system", NODES_AND_SCRIPTS, "names a new node, which is then asked itself"),
    within_folder(rule("POST", IDENTITY_PATH, C::either(C::CERTIFIED, C::UNKNOWN), "issues a certificate for a proof")),
    rule("POST", "/raft/append", C::NODE, "changes the namespace's log"),
    rule("POST", "/raft/vote", C::NODE, "elects a leader"),
    rule("POST", "/raft/prevote", C::NODE, "asks whether an election would succeed"),
    rule("POST", "/raft/transfer", C::NODE, "makes the node the leader"),
    rule("POST", "/raft/snapshot", C::NODE, "replaces the namespace's tables"),
    rule("GET", "/raft/identity", C::INSIDE, "reads the node's part in the namespace"),
    rule("POST", "/raft/leave", C::NODE, "takes a node's vote"),
    rule("POST", "/drain/peer", C::NODE, "announces a drain"),
    rule("GET", "/aws/founding", C::INSIDE, "reads whether the instance founds a ring"),
    rule("GET", "/scrub", CERTIFIED_AND_SCRIPTS, "reads the last check of the disk"),
    rule("GET", NAMESPACE_PATH, C::INSIDE, "reads the namespace's digest"),
    rule("GET", "/config", CERTIFIED_AND_SCRIPTS, "reads the ring's configuration"),
    rule("GET", "/drain", CERTIFIED_AND_SCRIPTS, "reads how far a drain is"),
    rule("GET", "/tokens", CERTIFIED_AND_SCRIPTS, "reads which nodes have tokens"),
    rule("GET", "/identities", C::INSIDE, "reads who is invited and who was let in"),
    rule("GET", "/pool", CERTIFIED_AND_SCRIPTS, "reads the chosen size of the pool"),
    rule("GET", "/pool/wanted", CERTIFIED_AND_SCRIPTS, "reads the chosen size of the pool"),
    rule("GET", "/delete-all", CERTIFIED_AND_SCRIPTS, "reads how far the deletion of all files is"),
    rule("GET", "/", CERTIFIED_AND_SCRIPTS, "the console"),
    rule("GET", "/console/events", CERTIFIED_AND_SCRIPTS, "the console, live"),
    within_folder(rule("GET", "/console.css", C::ANYONE, "the console's style")),
    within_folder(rule("GET", "/console.js", C::ANYONE, "the console's script")),
    within_folder(rule("GET", "/login", C::ANYONE, "the form for the token")),
    within_folder(rule("POST", "/login", C::ANYONE, "exchanges a token for a cookie")),
    rule("POST", "/logout", C::ANYONE, "forgets the cookie"),
    rule("POST", "/scrub", C::ANYONE, "token: checks the disk"),
    rule("PUT", "/config", C::ANYONE, "token: changes the ring's configuration"),
    rule("POST", "/cache/clear", C::ANYONE, "token: empties the caches"),
    rule("POST", "/drain", C::ANYONE, "token: makes the node leave"),
    rule("DELETE", "/drain", C::ANYONE, "token: makes the node stay"),
    rule("DELETE", "/tokens/{node_uid}", C::ANYONE, "token: revokes a token"),
    rule("POST", "/invitations", C::ANYONE, "token: lets somebody in once"),
    rule("DELETE", "/identities/{id}", C::ANYONE, "token: keeps somebody out"),
    rule("POST", "/pool/grow", C::ANYONE, "token: chooses the size of the pool"),
    rule("POST", "/pool/shrink", C::ANYONE, "token: chooses the size of the pool"),
    rule("POST", "/pool/release", C::ANYONE, "token: lets the pool choose its size"),
    rule("POST", "/pool/decision", C::ANYONE, "token: records a decision about the size"),
    rule("POST", "/delete-all", C::ANYONE, "token: deletes all files"),
    rule("POST", "/console/settings", C::ANYONE, "token: changes the ring's configuration"),
    rule("POST", "/console/clear-cache", C::ANYONE, "token: empties the caches"),
    rule("POST", "/console/delete-all", C::ANYONE, "token: deletes all files"),
    rule("POST", "/console/pool", C::ANYONE, "token: chooses the size of the pool"),
    rule("POST", "/console/node", C::ANYONE, "token: drains or checks a node"),
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    /// The paths of all routes in the sources of the crates that serve.
    fn routes_in(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_test = path.ends_with("tests") || path.ends_with("tests.rs");
            if path.is_dir() && !is_test {
                routes_in(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
                let source = fs::read_to_string(&path).unwrap();
                let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
                let begins = [".route(\"", "        (\"/api/"];
                for begin in begins {
                    let paths = source.split(begin).skip(1).filter_map(|rest| rest.split('"').next());
                    let prefix = if begin.starts_with(' ') { "/api/" } else { "" };
                    found.extend(paths.map(|path| format!("{prefix}{path}")));
                }
            }
        }
    }

    #[test]
    fn no_route_is_without_a_row() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut routes = BTreeSet::new();
        for name in ["node/src", "namespace/src", "aws/src/founding"] {
            routes_in(&crates.join(name), &mut routes);
        }
        assert!(routes.len() > 40 && routes.contains("/raft/vote") && routes.contains("/api/list_keys"), "{routes:?}");
        let rows: BTreeSet<&str> = FILES.iter().chain(ADMIN).map(|rule| rule.path).collect();
        let without: Vec<&String> = routes.iter().filter(|route| !rows.contains(route.as_str())).collect();
        assert!(without.is_empty(), "routes without a row in access/table.rs: {without:?}");
    }

    #[test]
    fn no_call_has_two_rows() {
        for rules in [RING, FILES, ADMIN] {
            let calls: Vec<_> = rules.iter().map(|rule| (rule.method, rule.path)).collect();
            assert_eq!(calls.iter().collect::<BTreeSet<_>>().len(), calls.len(), "{calls:?}");
        }
    }
}
