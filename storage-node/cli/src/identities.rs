//! `storage-node invite`, `accept`, `identities` and `revoke`: who may come into a ring with identities.

use std::{fmt::Write, fs, io, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use chordfs_identity::{InvitationToken, Role};
use chordfs_net::{admin_client::AdminError, ring_access::RingAccess};
use chordfs_types::duration;
use clap::Args;
use serde_json::{Value, json};

use crate::node_arg::{OperatorArg, admin_client};

#[derive(Args)]
pub struct InviteArgs {
    #[command(flatten)]
    node: OperatorArg,
    /// What the newcomer may do: node, operator, client, read-only-client, squashed-client, squashed-read-only-client
    /// or metrics
    #[arg(long, value_name = "ROLE")]
    role: Role,
    /// With --role client: it may only read
    #[arg(long)]
    read_only: bool,
    /// With --role client: root on its machine has no power over root's files
    #[arg(long)]
    root_squash: bool,
    /// With --role client: it sees this folder and nothing above it, as /projects
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// The name under which the newcomer is listed
    #[arg(long, value_name = "TEXT", default_value = "invited")]
    name: String,
    /// How long the invitation can be used [a number and s, m, h or d]
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration::parse_positive)]
    expires: Duration,
}

#[derive(Args)]
pub struct AcceptArgs {
    /// A file with the token, of which nobody else may read [default: the token is read from the standard input]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Args)]
pub struct RevokeArgs {
    #[command(flatten)]
    node: OperatorArg,
    /// The number of an identity or an invitation, as `identities` shows it
    #[arg(value_name = "ID")]
    id: String,
}

/// Returns the token to print.
pub async fn invite(args: InviteArgs) -> anyhow::Result<String> {
    let role = match (args.role, args.read_only, args.root_squash) {
        (role, false, false) => role,
        (Role::Client, true, false) => Role::ReadOnlyClient,
        (Role::Client, false, true) => Role::SquashedClient,
        (Role::Client, true, true) => Role::SquashedReadOnlyClient,
        (role, ..) => bail!("--read-only and --root-squash are for --role client, and not for the role {role}"),
    };
    let seconds = args.expires.as_secs().max(1);
    let body = json!({"role": role, "name": args.name, "path": args.path, "expires_seconds": seconds});
    let made = explained(args.node.client().await?.invite(args.node.address(), &body).await)?;
    let Some(token) = made["token"].as_str() else { bail!("{} sent no token: {made}", args.node.address()) };
    Ok(format!("{token}\n"))
}

/// Returns the text to print.
pub async fn accept(args: AcceptArgs) -> anyhow::Result<String> {
    let token: InvitationToken = match &args.file {
        Some(file) => InvitationToken::load(file)?,
        None => io::read_to_string(io::stdin()).context("the standard input")?.parse()?,
    };
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let access = RingAccess::accept(&token, &format!("storage-node on {}", host.trim())).await?;
    let role = access.role().map_or_else(String::new, |role| format!(" as {role}"));
    let node = token.nodes.first().map_or_else(String::new, ToString::to_string);
    Ok(format!("The ring of {node} has let this user in{role}. Commands find it by any of its nodes: --node {node}\n"))
}

/// Returns the text to print.
pub async fn list(node: OperatorArg) -> anyhow::Result<String> {
    let listed = explained(admin_client(node.address()).await?.identities(node.address()).await)?;
    let mut out = format!("{:<16}  {:<25}  {:<9}  {:<20}  NAME (FOLDER)\n", "ID", "ROLE", "STATE", "EXPIRES");
    for (kind, state) in [("invitations", "invited"), ("identities", "let in")] {
        for one in listed[kind].as_array().into_iter().flatten() {
            let text = |name: &str| one[name].as_str().unwrap_or("-");
            let state = if one["revoked"] == true { "revoked" } else { state };
            let (id, role, name) = (text("id"), text("role"), text("name"));
            let folder = one["path"].as_str().map(|path| format!(" ({path})")).unwrap_or_default();
            writeln!(out, "{id:<16}  {role:<25}  {state:<9}  {:<20}  {name}{folder}", expires(one))?;
        }
    }
    Ok(out)
}

fn expires(one: &Value) -> String {
    let seconds = one["expires"].as_u64().unwrap_or_default();
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

/// Returns the text to print.
pub async fn revoke(args: RevokeArgs) -> anyhow::Result<String> {
    explained(args.node.client().await?.revoke_identity(args.node.address(), &args.id).await)?;
    Ok("revoked: within seconds no node lets it in\n".into())
}

fn explained<T>(answer: Result<T, AdminError>) -> anyhow::Result<T> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(AdminError::Refused { text, .. }) => bail!("nothing was changed: {}", text.trim_end()),
        Err(error) => Err(error.into()),
    }
}
