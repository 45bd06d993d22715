//! `storage-node invite`, `identities` and `revoke`: who may come into a ring with identities.

use std::{fmt::Write, time::Duration};

use anyhow::bail;
use chordfs_identity::Role;
use chordfs_net::admin_client::AdminError;
use chordfs_types::duration;
use clap::Args;
use serde_json::{Value, json};

use crate::node_arg::{OperatorArg, admin_client};

#[derive(Args)]
pub struct InviteArgs {
    #[command(flatten)]
    node: OperatorArg,
    /// What the newcomer may do: node, operator, client, read-only-client or metrics
    #[arg(long, value_name = "ROLE")]
    role: Role,
    /// With --role client: it may only read
    #[arg(long)]
    read_only: bool,
    /// The name under which the newcomer is listed
    #[arg(long, value_name = "TEXT", default_value = "invited")]
    name: String,
    /// How long the invitation can be used [a number and s, m, h or d]
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration::parse_positive)]
    expires: Duration,
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
    let role = match (args.role, args.read_only) {
        (Role::Client, true) => Role::ReadOnlyClient,
        (role, false) => role,
        (role, true) => bail!("--read-only is for clients, and not for the role {role}"),
    };
    let seconds = args.expires.as_secs().max(1);
    let body = json!({"role": role, "name": args.name, "expires_seconds": seconds});
    let made = explained(args.node.client().await?.invite(args.node.address(), &body).await)?;
    let Some(token) = made["token"].as_str() else { bail!("{} sent no token: {made}", args.node.address()) };
    Ok(format!("{token}\n"))
}

/// Returns the text to print.
pub async fn list(node: OperatorArg) -> anyhow::Result<String> {
    let listed = explained(admin_client(node.address()).await?.identities(node.address()).await)?;
    let mut out = format!("{:<16}  {:<16}  {:<9}  {:<20}  NAME\n", "ID", "ROLE", "STATE", "EXPIRES");
    for (kind, state) in [("invitations", "invited"), ("identities", "let in")] {
        for one in listed[kind].as_array().into_iter().flatten() {
            let text = |name: &str| one[name].as_str().unwrap_or("-");
            let state = if one["revoked"] == true { "revoked" } else { state };
            let (id, role, name) = (text("id"), text("role"), text("name"));
            writeln!(out, "{id:<16}  {role:<16}  {state:<9}  {:<20}  {name}", expires(one))?;
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
