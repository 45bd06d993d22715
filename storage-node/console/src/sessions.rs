//! The sessions of mounts and nodes with the namespace.

use chordfs_types::{admin::SessionStatus, byte_size::human};
use maud::{Markup, html};

const UNKNOWN: &str = "-";

pub(crate) fn body(sessions: &Result<Vec<SessionStatus>, String>) -> Markup {
    match sessions {
        Err(reason) => html! { p { "The sessions are not known at present: " (reason) "." } },
        Ok(sessions) if sessions.is_empty() => html! { p { "No mount and no node has a session." } },
        Ok(sessions) => table(sessions),
    }
}

fn table(sessions: &[SessionStatus]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Table of the sessions" {
            table {
                caption { "Mounts and nodes that use the namespace, as its leader knows them" }
                thead {
                    tr {
                        th scope="col" { "Client" }
                        th scope="col" { "Address" }
                        th.number scope="col" { "Session" }
                        th.number scope="col" { "Last heard" }
                        th.number scope="col" { "Lease left" }
                        th.number scope="col" { "Not stored yet" }
                        th.number scope="col" { "Open files" }
                        th.number scope="col" { "Removed files held open" }
                        th.number scope="col" { "Leases" }
                        th.number scope="col" { "Recalls" }
                        th.number scope="col" { "Not logged yet" }
                    }
                }
                tbody { @for session in sessions { (row(session)) } }
            }
        }
        p.note {
            "Mounts report what they have not stored yet (dirty bytes), what they have open, and the changes of names and "
            "attributes that are not logged yet; nodes do not. Recalls are messages about leases that a mount has not "
            "answered: others wait for it."
        }
    }
}

fn unlogged(session: &SessionStatus) -> String {
    session.unlogged_text().unwrap_or_else(|| UNKNOWN.into())
}

fn row(session: &SessionStatus) -> Markup {
    let addresses: Vec<String> = session.addresses.iter().map(ToString::to_string).collect();
    html! {
        tr {
            th scope="row" { (session.client) }
            td { @if addresses.is_empty() { "not connected" } @else { (addresses.join(", ")) } }
            td.number { (session.id) }
            td.number { (session.silent_seconds) " s ago" }
            td.number { @if session.is_suspended { "suspended" } @else { (session.lease_seconds_left) " s" } }
            td.number { (session.dirty_bytes.map_or(UNKNOWN.into(), human)) }
            td.number { (session.open_files.map_or(UNKNOWN.into(), |files| files.to_string())) }
            td.number { (session.held_files) }
            td.number { (session.leases) }
            td.number { (session.recalls) }
            td.number { (unlogged(session)) }
        }
    }
}
