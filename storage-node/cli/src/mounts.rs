//! The mounts in the status of the ring: what each may answer from memory, and what others would wait for.

use chordfs_net::admin_client::AdminError;
use chordfs_types::{admin::SessionStatus, byte_size::human};

use crate::table::aligned;

const HEAD: [&str; 7] = ["MOUNT", "SESSION", "HEARD", "LEASES", "RECALLS", "NOT STORED", "NOT LOGGED"];
const UNKNOWN: &str = "-";

pub(crate) fn mounts(sessions: &Result<Vec<SessionStatus>, AdminError>) -> String {
    let rows: Vec<[String; 7]> = match sessions {
        Err(error) => return format!("mounts            not known: {error}\n"),
        Ok(sessions) => sessions.iter().filter(|session| session.is_mount).map(row).collect(),
    };
    if rows.is_empty() {
        return "mounts            none\n".into();
    }
    let head = [HEAD.map(str::to_owned)];
    format!("mounts            {}\n{}", rows.len(), aligned(&[&head[..], &rows].concat()))
}

fn row(session: &SessionStatus) -> [String; 7] {
    [
        session.client.clone(),
        session.id.to_string(),
        format!("{} s ago{}", session.silent_seconds, if session.is_suspended { ", suspended" } else { "" }),
        session.leases.to_string(),
        session.recalls.to_string(),
        session.dirty_bytes.map_or(UNKNOWN.into(), human),
        session.unlogged_text().unwrap_or_else(|| UNKNOWN.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_have_a_line_each_and_nodes_none() {
        let mount = SessionStatus {
            id: 7,
            client: "host:/mnt/chord".into(),
            addresses: Vec::new(),
            silent_seconds: 2,
            lease_seconds_left: 58,
            held_files: 0,
            dirty_bytes: Some(3 << 20),
            open_files: Some(1),
            is_mount: true,
            is_suspended: false,
            leases: 1204,
            recalls: 1,
            unlogged_changes: Some(57),
            oldest_unlogged_millis: Some(420),
        };
        let silent =
            SessionStatus { id: 8, dirty_bytes: None, unlogged_changes: None, silent_seconds: 91, ..mount.clone() };
        let silent = SessionStatus { is_suspended: true, ..silent };
        let node = SessionStatus { client: "storage-node 10.0.0.1:5057".into(), is_mount: false, ..mount.clone() };
        let expected = "mounts            2\n\
                        MOUNT            SESSION  HEARD                LEASES  RECALLS  NOT STORED  NOT LOGGED\n\
                        host:/mnt/chord  7        2 s ago              1204    1        3.00 MiB    57, 0.4 s\n\
                        host:/mnt/chord  8        91 s ago, suspended  1204    1        -           -\n";
        assert_eq!(mounts(&Ok(vec![mount, node.clone(), silent])), expected);
        assert_eq!(mounts(&Ok(vec![node])), "mounts            none\n");
    }
}
