//! `storage-node token`: shows the operator's token of a node on this machine, and lists or revokes those of the ring.

use std::{fmt::Write, path::PathBuf};

use anyhow::{Context, bail};
use chordfs_net::{
    admin_client::AdminError,
    operator_token::{find_token, read_token, token_path},
};
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::node_arg::{NodeArg, OperatorArg, admin_client};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: Option<TokenCommand>,
    #[command(flatten)]
    node: NodeArg,
    /// The node's data folder, if the node does not run or runs as another user
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// List the nodes whose tokens the ring accepts; any of these tokens opens all nodes
    List(NodeArg),
    /// Make all nodes refuse the token of one node. If that node runs, it makes a new one
    Revoke {
        #[command(flatten)]
        node: OperatorArg,
        /// The uid of the node whose token is revoked, as `list` shows it
        #[arg(value_name = "NODE_UID")]
        uid: String,
    },
}

/// Returns the text to print.
pub async fn run(args: TokenArgs) -> anyhow::Result<String> {
    match args.command {
        None => show(args.node, args.data),
        Some(TokenCommand::List(node)) => list(node).await,
        Some(TokenCommand::Revoke { node, uid }) => revoke(node, &uid).await,
    }
}

fn show(node: NodeArg, data: Option<PathBuf>) -> anyhow::Result<String> {
    let token = match data {
        Some(data) => read_token(&token_path(&data)).context("the operator's token")?,
        None => find_token(node.address().0).with_context(|| {
            let node = node.address();
            format!(
                "no token of {node} can be read here: run this on the node's machine, as root or as the node's user, or \
                 name its data folder with --data"
            )
        })?,
    };
    Ok(token.reveal() + "\n")
}

async fn list(node: NodeArg) -> anyhow::Result<String> {
    let tokens = admin_client(node.address()).await?.tokens(node.address()).await?;
    let mut out = format!("{:<18} {:<22} {:<8} since\n", "node uid", "node", "token");
    for token in &tokens {
        let text = |name: &str| token[name].as_str().unwrap_or("-");
        let state = if token["revoked"] == true { "revoked" } else { "accepted" };
        writeln!(out, "{:<18} {:<22} {state:<8} {}", text("node_uid"), text("node"), since(token))?;
    }
    Ok(out)
}

fn since(token: &Value) -> String {
    let seconds = token["since"].as_u64().unwrap_or_default();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}

async fn revoke(node: OperatorArg, uid: &str) -> anyhow::Result<String> {
    match node.client().await?.revoke_token(node.address(), uid).await {
        Ok(()) => Ok("revoked: within seconds no node accepts this token\n".into()),
        Err(AdminError::Refused { text, .. }) => bail!("nothing was revoked: {}", text.trim_end()),
        Err(error) => Err(error.into()),
    }
}
