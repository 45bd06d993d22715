//! `storage-node`: parses the command line and starts the command that it names.

use std::{ffi::OsString, process::ExitCode};

use anyhow::Context;
#[cfg(feature = "aws")]
use chordfs_aws::args::AwsArgs;
use chordfs_identity::forbid_core_dumps;
use chordfs_node::http::open_files;
use chordfs_pool::args::PoolArgs;
use clap::{Parser, Subcommand};
use nix::sys::stat::{Mode, umask};
use storage_node::{
    autoscaler::{self, AutoscalerArgs},
    check::{self, CheckArgs},
    config::{self, ConfigArgs},
    drain::{self, DrainArgs},
    identities::{self, AcceptArgs, InviteArgs, RevokeArgs},
    ls,
    node_arg::{NodeArg, OperatorArg},
    output::{complain, runtime, write_out},
    pool_size::{self, PoolSizeArgs},
    recover::{self, RecoverArgs},
    rejoin::{self, RejoinArgs},
    run::{self, RunArgs},
    scrub, status,
    token::{self, TokenArgs},
};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(name = "storage-node", version, about = "A storage node of chordfs: keeps chunks on a ring and serves them")]
struct StorageNodeCli {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Subcommand)]
enum NodeCommand {
    /// Run a node until SIGTERM
    Run(Box<RunArgs>),
    /// Run a pool of nodes that grows as they fill and shrinks as they empty
    Pool(PoolArgs),
    /// Choose the size of the pool by miss rates and disks while pool.mode is automatic, until SIGTERM. It may run
    /// anywhere, and more than once
    Autoscaler(AutoscalerArgs),
    /// Inspect what a node sets up in its Auto Scaling group, or become an operator of its ring
    #[cfg(feature = "aws")]
    #[command(subcommand)]
    Aws(AwsCommand),
    /// List the chunks that a node keeps: NAME_chunk_I BYTES VERSION
    Ls(NodeArg),
    /// Show the whole ring: every node with its data and work, the voters of the namespace, and the verdict. The exit
    /// code is 0 for OK, 1 for WARN, 2 for ERROR or if the node does not answer
    Status {
        #[command(flatten)]
        node: NodeArg,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Only this node's own status and its neighbours
        #[arg(long)]
        one: bool,
    },
    /// Look up every chunk of every file at its holders, and look for chunks that belong to no file; changes nothing.
    /// The exit code is 0 if all is right (orphans only take space), 1 if something is wrong, 2 if the ring is in the
    /// state ERROR or the check was incomplete
    Check(CheckArgs),
    /// Check every chunk that a node keeps against its checksum, have damaged ones replaced, and report the result
    Scrub(OperatorArg),
    /// Show or change the configuration of all nodes: their caches and the size of the pool
    Config(ConfigArgs),
    /// Show how many nodes the pool shall have, and the last decisions with their reasons; or grow, shrink or release
    /// it
    PoolSize(PoolSizeArgs),
    /// Show the operator's token of this machine's node: with it one may change the ring, in a browser or by commands
    Token(TokenArgs),
    /// Let somebody come into a ring with identities, once: prints a token. A mount takes it in place of its SOURCE, a
    /// node in place of the address to join
    Invite(InviteArgs),
    /// Use an invitation of the role operator: afterwards this user's commands may act on the ring from this machine
    Accept(AcceptArgs),
    /// List who is invited into a ring with identities, and whom it has let in
    Identities(OperatorArg),
    /// Keep an identity out of the ring, or withdraw an invitation
    Revoke(RevokeArgs),
    /// Take a node out of the ring: it hands over its chunks, serves until that is done, then ends. Ctrl-C only stops
    /// watching the drain
    Drain(DrainArgs),
    /// Restart the namespace from one stopped node when most of its voters are gone for good
    Recover(RecoverArgs),
    /// Put a stopped node's damaged part of the namespace aside; the other voters fill it anew
    Rejoin(RejoinArgs),
}

#[cfg(feature = "aws")]
#[derive(Subcommand)]
enum AwsCommand {
    /// Print what a node would create or change in the group; change nothing
    Plan(AwsArgs),
    /// Make this user an operator of the group's ring, by the right to read the secret with the ring's authority.
    /// Afterwards the commands, `invite` among them, need no token
    Accept(AwsArgs),
}

fn main() -> ExitCode {
    let done = match StorageNodeCli::parse_from(arguments()).command {
        NodeCommand::Run(args) => serve_on(args.threads(), async { Box::pin(run::run(*args)).await }),
        NodeCommand::Pool(args) => serve(async { chordfs_pool::local::run(args.checked()?).await }),
        NodeCommand::Autoscaler(args) => serve(autoscaler::run(args)),
        #[cfg(feature = "aws")]
        NodeCommand::Aws(AwsCommand::Plan(args)) => print(async { chordfs_aws::plan(args.checked()?).await }),
        #[cfg(feature = "aws")]
        NodeCommand::Aws(AwsCommand::Accept(args)) => print(async { chordfs_aws::accept(args.checked()?).await }),
        NodeCommand::Ls(node) => print(ls::chunks(node.address())),
        NodeCommand::Status { node, json, one } => return status::run(node.address(), json, one),
        NodeCommand::Check(args) => return check::run(args),
        NodeCommand::Scrub(node) => print(scrub::scrub(node)),
        NodeCommand::Config(args) => print(config::run(args)),
        NodeCommand::PoolSize(args) => print(pool_size::run(args)),
        NodeCommand::Token(args) => print(token::run(args)),
        NodeCommand::Invite(args) => print(identities::invite(args)),
        NodeCommand::Accept(args) => print(identities::accept(args)),
        NodeCommand::Identities(node) => print(identities::list(node)),
        NodeCommand::Revoke(args) => print(identities::revoke(args)),
        NodeCommand::Drain(args) => drain::run(args),
        NodeCommand::Recover(args) => recover::run(args),
        NodeCommand::Rejoin(args) => rejoin::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("storage-node: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The user data of an instance may be `storage-node --aws ...`, short for `run --aws ...`.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let no_command = arguments.get(1).is_some_and(|first| first.to_string_lossy().starts_with("--"));
    if no_command && arguments.iter().any(|argument| argument == "--aws") {
        arguments.insert(1, "run".into());
    }
    arguments
}

/// Runs a command that logs until it is stopped.
fn serve(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    serve_on(None, command)
}

fn serve_on(threads: Option<usize>, command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    // At `warn`, openraft logs every heartbeat to a dead voter. `membership/voter_watch.rs` reports that once a minute.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,openraft=error"));
    // A line that cannot be written, because the disk of the log is full, must not end the thread that logs it: with
    // internal errors on, the subscriber reports them by `eprintln!`, which panics.
    let log = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    log.with_writer(std::io::stderr).with_ansi(false).init();
    // The node's files are other people's data: only the user who runs the node may read them.
    umask(Mode::from_bits_truncate(0o077));
    open_files::raise_limit();
    forbid_core_dumps().context("forbid core dumps")?;
    runtime(threads)?.block_on(command)
}

/// Runs a command whose result is a text for standard output.
fn print(command: impl Future<Output = anyhow::Result<String>>) -> anyhow::Result<()> {
    write_out(&runtime(None)?.block_on(command)?)
}
