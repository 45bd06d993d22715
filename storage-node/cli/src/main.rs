//! `storage-node`: parses the command line, checks it, and starts the node or asks one.

use std::{
    ffi::OsString,
    io::Write,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

#[cfg(feature = "aws")]
use chordfs_aws::args::AwsArgs;
use chordfs_node::{
    http::open_files,
    lifecycle::{self, NodeConfig},
};
use chordfs_pool::{self, args::PoolArgs};
use chordfs_types::{duration, rate_limit::RateLimit};
use clap::{Args, Parser, Subcommand};
use storage_node::{
    ask::{self, Asked},
    check::{self, CheckOptions},
    drain::{self, DrainRequest},
    recover::{self, RecoverOptions},
    scrub,
};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(name = "storage-node", version, about = "A storage node of chordfs: keeps chunks on a ring and serves them")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node until SIGTERM
    Run(Box<RunArgs>),
    /// Run a pool of nodes that grows as they fill and shrinks as they empty
    Pool(PoolArgs),
    /// What a node in an Auto Scaling group does there
    #[cfg(feature = "aws")]
    #[command(subcommand)]
    Aws(AwsCommand),
    /// List the chunks a node keeps: NAME_chunk_I BYTES VERSION
    Ls(Which),
    /// Show the whole ring: every node with what it has and does, and who votes on the namespace
    Status {
        #[command(flatten)]
        which: Which,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Only what this node knows of itself and its neighbours
        #[arg(long)]
        one: bool,
    },
    /// Look for every chunk of every file at its holders, and for what belongs to no file; changes nothing. Ends with
    /// 0 if all is right (orphans only take space), 1 if something is wrong, 2 if that could not be found out
    Check {
        #[command(flatten)]
        which: Which,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Read every copy and check it against its checksum: takes as long as reading all that is stored
        #[arg(long)]
        verify: bool,
        /// A stored chunk of no file is an orphan after this time; before, it may be on its way into one
        #[arg(long, value_name = "SECONDS", default_value_t = 30)]
        grace: u64,
    },
    /// Check every chunk a node keeps against its checksum, have damaged ones replaced, and say what was found
    Scrub(Which),
    /// Take a node out of the ring: it hands over what it keeps, serves until that is done, then ends. Ctrl-C only stops
    /// watching it
    Drain(DrainArgs),
    /// Let a stopped node go on when most voters on the namespace are gone for good
    Recover(RecoverArgs),
}

#[cfg(feature = "aws")]
#[derive(Subcommand)]
enum AwsCommand {
    /// Print what a node would create or change in the group; change nothing
    Plan(AwsArgs),
}

#[derive(Args)]
struct DrainArgs {
    #[command(flatten)]
    which: Which,
    /// Also when fewer than three nodes stay: each chunk is then kept by as many as there are
    #[arg(long)]
    allow_fewer_copies: bool,
    /// Bytes a second that this drain may send, as in 64M, 1G; 0 or none: no limit. Also for one that is under way
    /// [default: shares what the node's --repair-rate allows]
    #[arg(long, value_name = "RATE")]
    rate: Option<RateLimit>,
    /// Call off the drain that is under way: the node serves as before. Possible until the ring is told that it leaves
    #[arg(long, conflicts_with_all = ["allow_fewer_copies", "rate"])]
    cancel: bool,
}

#[derive(Args)]
struct RecoverArgs {
    /// Make this node the only voter; says what may be lost, and asks
    #[arg(long, required = true)]
    sole_survivor: bool,
    /// The stopped node's folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Its ring address from now on [IP:PORT, or IP for port 5057; default: as before]
    #[arg(long, value_name = "ADDRESS", value_parser = ring_address)]
    address: Option<SocketAddr>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Args)]
struct RunArgs {
    /// On EC2: find out address and ring by the Auto Scaling group that this instance belongs to, and see to the group's
    /// policy, alarm and metric. `storage-node --aws ...` is the same
    #[cfg(feature = "aws")]
    #[arg(long)]
    aws: bool,
    #[cfg(feature = "aws")]
    #[command(flatten)]
    aws_args: AwsArgs,
    /// Folder for everything the node keeps; made if it is missing [with --aws: /var/lib/chordfs]
    #[arg(long, value_name = "DIR", env = "CHORDFS_DATA")]
    #[cfg_attr(feature = "aws", arg(required_unless_present = "aws"))]
    #[cfg_attr(not(feature = "aws"), arg(required = true))]
    data: Option<PathBuf>,
    /// Address that other nodes and mounts reach this node at [with --aws: what --advertise says]
    #[arg(long, env = "CHORDFS_IP")]
    #[cfg_attr(feature = "aws", arg(required_unless_present = "aws"))]
    #[cfg_attr(not(feature = "aws"), arg(required = true))]
    ip: Option<IpAddr>,
    /// Address to listen on, where that of --ip is none of this machine's but translated on its way here [with --aws:
    /// found out]
    #[arg(long, value_name = "IP", env = "CHORDFS_LISTEN")]
    listen: Option<IpAddr>,
    /// Port of the ring; files are served on the next port, administration on the one after it
    #[arg(long, default_value_t = 5057, value_parser = clap::value_parser!(u16).range(1..=65533))]
    port: u16,
    /// Any member of the ring to join, more than one if known; without it the node is a ring's first, unless its folder
    /// remembers a ring [IP:PORT, or IP for port 5057]
    #[arg(long, value_name = "ADDRESS", value_parser = ring_address)]
    join: Vec<SocketAddr>,
    /// Position on the ring, 0..2^32 [default: chosen so that the fullest node is relieved, then kept]
    #[arg(long)]
    id: Option<u32>,
    /// What fails together with this node, as a rack or a room: copies are kept in different zones where there are any
    /// [with --aws: the instance's availability zone]
    #[arg(long, value_name = "NAME", env = "CHORDFS_ZONE")]
    zone: Option<String>,
    /// Largest size of the chunks kept here, in MiB [default: what the disk has]
    #[arg(long, value_name = "MIB")]
    capacity: Option<u64>,
    /// Space of the disk that is never filled, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    reserve: u64,
    /// Every chunk kept here is read and checked once in this time [a number and ms, s, m, h or d]
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration::parse_positive)]
    scrub_period: Duration,
    /// Chunks that no file has are deleted when they have been here for this long [a number and ms, s, m, h or d]
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration::parse_positive)]
    orphan_age: Duration,
    /// Bytes a second that filling this node, repairing others and a drain may use together, as in 64M, 1G; 0 or none: no
    /// limit
    #[arg(long, value_name = "RATE", default_value_t = RateLimit::default())]
    repair_rate: RateLimit,
    /// Let the ring call `kill` end this process
    #[arg(long)]
    allow_kill: bool,
    /// The first SIGTERM drains the node, see `drain`; a second one stops it at once
    #[arg(long)]
    drain_on_term: bool,
}

#[derive(Args)]
struct Which {
    /// A running node [IP:PORT of its ring plane, or IP for port 5057]
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5057", value_parser = ring_address)]
    node: SocketAddr,
}

fn ring_address(text: &str) -> Result<SocketAddr, String> {
    let with_default = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 5057));
    text.parse().or_else(|_| with_default()).map_err(|_| format!("{text:?} is neither IP:PORT nor an IP"))
}

/// On an instance: its own volume is mounted there.
const AWS_DATA: &str = "/var/lib/chordfs";

impl From<RunArgs> for NodeConfig {
    /// With --aws the address is only known on the instance.
    fn from(args: RunArgs) -> Self {
        let ip = args.ip.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let data = args.data.unwrap_or_else(|| PathBuf::from(AWS_DATA));
        let mut config = NodeConfig::new(data, SocketAddr::new(ip, args.port));
        config.listen = args.listen;
        config.join = args.join;
        config.id = args.id;
        config.zone = args.zone;
        config.store.capacity_bytes = args.capacity.map(|mib| mib << 20);
        config.store.reserve_bytes = args.reserve << 20;
        config.scrub.period = args.scrub_period;
        config.scrub.orphan_age = args.orphan_age;
        config.repair_rate = args.repair_rate;
        config.allow_kill = args.allow_kill;
        config.drain_on_term = args.drain_on_term;
        config
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse_from(arguments()).command {
        Command::Run(args) => run(*args),
        Command::Pool(args) => run_pool(args),
        #[cfg(feature = "aws")]
        Command::Aws(AwsCommand::Plan(args)) => print(async { chordfs_aws::plan(args.checked()?).await }),
        Command::Ls(which) => print(ask::chunks(which.node)),
        Command::Status { which, json, one: true } => print(ask::status(which.node, json)),
        Command::Status { which, json, one: false } => print(ask::ring(which.node, json)),
        Command::Check { which, json, verify, grace } => {
            let grace = Duration::from_secs(grace);
            return check(CheckOptions { node: which.node, verify, grace }, json);
        }
        Command::Scrub(which) => print(scrub::scrub(which.node)),
        Command::Drain(DrainArgs { which, cancel: true, .. }) => print(drain::cancel(which.node)),
        Command::Drain(args) => drain(args),
        Command::Recover(args) => recover(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("storage-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `storage-node --aws ...` is what an instance's user data says; it is `run --aws ...`.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let no_command = arguments.get(1).is_some_and(|first| first.to_string_lossy().starts_with("--"));
    if no_command && arguments.iter().any(|argument| argument == "--aws") {
        arguments.insert(1, "run".into());
    }
    arguments
}

fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,openraft=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
}

fn run(args: RunArgs) -> anyhow::Result<()> {
    start_log();
    open_files::raise_limit();
    #[cfg(feature = "aws")]
    if args.aws {
        let (settings, ip) = (args.aws_args.clone().checked()?, args.ip);
        return runtime()?.block_on(chordfs_aws::run(settings, args.into(), ip));
    }
    runtime()?.block_on(lifecycle::run(args.into()))
}

fn run_pool(args: PoolArgs) -> anyhow::Result<()> {
    start_log();
    open_files::raise_limit();
    let pool = args.checked()?;
    runtime()?.block_on(chordfs_pool::local::run(pool))
}

fn drain(args: DrainArgs) -> anyhow::Result<()> {
    let request = DrainRequest { allow_fewer_copies: args.allow_fewer_copies, rate: args.rate };
    drain::prepare(args.which.node)?;
    runtime()?.block_on(drain::drain(args.which.node, request))
}

fn recover(args: RecoverArgs) -> anyhow::Result<()> {
    let options = RecoverOptions { data: args.data, address: args.address, yes: args.yes };
    runtime()?.block_on(recover::sole_survivor(options))
}

fn print(asked: impl Asked) -> anyhow::Result<()> {
    write_out(&runtime()?.block_on(asked)?)
}

fn write_out(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // The reader (head, less) has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

/// Its own exit codes: whoever runs it by a timer has to know a fault from a check that came to nothing.
fn check(options: CheckOptions, json: bool) -> ExitCode {
    const NOT_CHECKED: u8 = 2;
    let done = || -> anyhow::Result<u8> {
        let report = runtime()?.block_on(check::check(options))?;
        let text = if json { serde_json::to_string(&report)? + "\n" } else { report.for_people() };
        write_out(&text)?;
        Ok(report.exit_code())
    };
    ExitCode::from(done().unwrap_or_else(|error| {
        eprintln!("storage-node: not checked: {error:#}");
        NOT_CHECKED
    }))
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
