//! Every call of the table, by every kind of caller, to a running node.

use std::{collections::BTreeMap, net::SocketAddr};

use chordfs_net::rpc::{RpcClient, RpcError};
use chordfs_node::access::{Row, rows};
use harness::Cluster;
use hyper::StatusCode;
use tokio::runtime::Runtime;

use super::visitors::{SOON, Visitor, invite, invited, ring, visitors};

/// A caller, the name that the table has for its kind, and whether it is bound to a folder.
struct Kind {
    visitor: Visitor,
    name: &'static str,
    is_bound: bool,
}

fn kinds(cluster: &Cluster, runtime: &Runtime) -> Vec<Kind> {
    let free = |visitor: Visitor| {
        let name = match visitor.name {
            "no certificate" => "unknown",
            name => name,
        };
        Kind { visitor, name, is_bound: false }
    };
    let everybody = visitors(cluster, runtime).into_iter();
    // Neither a connection of another ring's nor a certificate that has expired is a kind of its own.
    let known = everybody.filter(|visitor| !["another ring's", "expired"].contains(&visitor.name));
    let mut kinds: Vec<Kind> = known.map(free).collect();
    let token = invite(cluster, &["--role", "client", "--path", "/projects"]);
    let visitor = Visitor { name: "bound", connector: invited(runtime, &token) };
    kinds.push(Kind { visitor, name: "client", is_bound: true });
    kinds
}

impl Kind {
    fn may_make(&self, row: &Row) -> bool {
        row.callers.contains(&self.name) && (row.bound || !self.is_bound)
    }

    /// Whether the node refuses the call because of the caller.
    fn is_refused(&self, runtime: &Runtime, cluster: &Cluster, port: u16, row: &Row) -> bool {
        let address = SocketAddr::from((cluster.ip(0), port));
        if row.method == "call" {
            return runtime.block_on(self.is_refused_on_ring(address, row.path));
        }
        // A stream of events has no end, and its head says enough.
        let method = if ["GET", "*"].contains(&row.method) { "HEAD" } else { row.method };
        let status = runtime.block_on(self.visitor.call(address, method, &a_path(row.path)));
        match status {
            Some(status) => status == StatusCode::FORBIDDEN,
            None => panic!("{}: {method} {}: no answer", self.visitor.name, row.path),
        }
    }

    async fn is_refused_on_ring(&self, address: SocketAddr, method: &str) -> bool {
        let client = RpcClient::dial(&self.visitor.connector, address, SOON).await.expect("there is a connection");
        match client.call(method, Vec::new(), SOON).await {
            Ok(_) => false,
            Err(RpcError::Remote { error, .. }) => {
                error.as_str().is_some_and(|text| text.contains(" is for ") || text.contains("is bound to the folder"))
            }
            Err(other) => panic!("{}: {method}: {other}", self.visitor.name),
        }
    }
}

/// A path that the route matches.
fn a_path(route: &str) -> String {
    let parameters = BTreeMap::from([
        ("{*path}", "missing"),
        ("{*key}", "missing"),
        ("{*rest}", "unheard/of"),
        ("{node_uid}", "7"),
        ("{id}", "0123456789abcdef"),
    ]);
    parameters.into_iter().fold(route.to_owned(), |path, (name, value)| path.replace(name, value))
}

#[test]
fn every_call_of_the_table_is_refused_to_all_that_may_not_make_it_and_to_nobody_else() {
    let cluster = ring(1);
    let runtime = Runtime::new().unwrap();
    let kinds = kinds(&cluster, &runtime);
    assert_eq!(kinds.len(), 8);
    let mut wrong = Vec::new();
    for (port, rows) in (5057..).zip(rows()) {
        assert!(rows.len() > 15, "{port} has {} rows", rows.len());
        // Only a node in an Auto Scaling group has this route.
        let rows: Vec<Row> = rows.into_iter().filter(|row| row.path != "/aws/founding").collect();
        for (row, kind) in rows.iter().flat_map(|row| kinds.iter().map(move |kind| (row, kind))) {
            let (expected, is_refused) = (!kind.may_make(row), kind.is_refused(&runtime, &cluster, port, row));
            if is_refused != expected {
                wrong.push(format!("{port} {} {}: {}: refused: {is_refused}", row.method, row.path, kind.visitor.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
