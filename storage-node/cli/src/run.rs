//! `storage-node run`: turns the command line into the configuration of a node, and runs it.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

#[cfg(feature = "aws")]
use chordfs_aws::args::AwsArgs;
use chordfs_identity::{IdentityError, InvitationToken};
use chordfs_namespace::RootOwner;
use chordfs_net::{
    allocator::{self, TrimSchedule},
    transport::PlainNetworks,
};
use chordfs_node::{
    identity::SecurityConfig,
    lifecycle::{self, NodeConfig},
};
use chordfs_types::{
    duration,
    namespace::{EntryName, path_names},
    rate_limit::RateLimit,
};
use clap::{Args, builder::FalseyValueParser};

use crate::{node_arg::ring_address, root_owner};

#[derive(Args)]
pub struct RunArgs {
    /// On EC2: find address and ring through the Auto Scaling group of this instance, and set up the group's policy,
    /// alarm and metric. `storage-node --aws ...` does the same
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
    /// Address at which other nodes and mounts reach this node [with --aws: as --advertise chooses]
    #[arg(long, env = "CHORDFS_IP")]
    #[cfg_attr(feature = "aws", arg(required_unless_present = "aws"))]
    #[cfg_attr(not(feature = "aws"), arg(required = true))]
    ip: Option<IpAddr>,
    /// Address to listen on, if that of --ip is not this machine's own but translated on the way to it [with --aws:
    /// detected]
    #[arg(long, value_name = "IP", env = "CHORDFS_LISTEN")]
    listen: Option<IpAddr>,
    /// Port of the ring; files are served on the next port, administration on the one after it
    #[arg(long, default_value_t = 5057, value_parser = clap::value_parser!(u16).range(1..=65533))]
    port: u16,
    /// Any member of the ring to join [IP:PORT, or IP for port 5057], or the token of an invitation; may be repeated.
    /// Without it the node is a ring's first, unless its folder remembers a ring
    #[arg(long, value_name = "ADDRESS", value_parser = join_target)]
    join: Vec<JoinTarget>,
    /// A file with the token of an invitation, which other users of the machine cannot see among the processes
    #[arg(long, value_name = "FILE", env = "CHORDFS_INVITATION_FILE", value_parser = invitation_file)]
    invitation_file: Option<InvitationToken>,
    /// Position on the ring, 0..2^32 [default: chosen so that the fullest node is relieved, then kept]
    #[arg(long)]
    id: Option<u32>,
    /// The failure domain of this node, such as a rack or a room: copies are kept in different zones if there are
    /// several [with --aws: the instance's availability zone]
    #[arg(long, value_name = "NAME", env = "CHORDFS_ZONE")]
    zone: Option<String>,
    /// Found the namespace on this node although it joins a ring: for one node of a ring that was founded by a foreign
    /// Chord node and has no namespace. A node that was in a ring before ignores it
    #[arg(long)]
    found_namespace: bool,
    /// Owner of the root directory if this node founds a ring, by name or number [default: the user who runs the node]
    #[arg(long, value_name = "USER[:GROUP]", value_parser = root_owner::parse)]
    root_owner: Option<RootOwner>,
    /// Largest total size of the chunks kept here, in MiB [default: the size of the disk]
    #[arg(long, value_name = "MIB")]
    capacity: Option<u64>,
    /// Space of the disk that is never filled, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    reserve: u64,
    /// Every chunk kept here is read and checked once in this time [a number and ms, s, m, h or d]
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration::parse_positive)]
    scrub_period: Duration,
    /// Chunks that belong to no file are deleted after this time [a number and ms, s, m, h or d]
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = duration::parse_positive)]
    orphan_age: Duration,
    /// Bytes a second that filling this node, repairing others and a drain may use together, as in 64M, 1G; 0 or none:
    /// no limit
    #[arg(long, value_name = "RATE", default_value_t = RateLimit::default())]
    repair_rate: RateLimit,
    /// How long a node that has gone is expected back, before its chunks are copied to another one in its place [a
    /// number and ms, s, m, h or d]
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse_positive)]
    restart_grace: Duration,
    /// For test networks: give the ring no identities, or join one that has none. Nothing is encrypted, and whoever
    /// reaches the ports may read, change and delete everything. Without this a ring's first node makes a certificate
    /// authority, and every other node needs an invitation, unless it runs on the machine of a node whose files its
    /// user may read
    #[arg(long, env = "CHORDFS_INSECURE", value_parser = FalseyValueParser::new())]
    insecure: bool,
    /// Networks from which old scripts, foreign nodes and browsers may connect without encryption, as in
    /// 127.0.0.0/8,10.1.2.3,fd00::/8; or `none`
    #[arg(long, value_name = "NETWORKS", env = "CHORDFS_LEGACY", default_value = "127.0.0.0/8,::1")]
    legacy: PlainNetworks,
    /// The folder whose files alone they may read and change, over port 5058; it is their root
    #[arg(long, value_name = "PATH", env = "CHORDFS_LEGACY_PATH", default_value = "/", value_parser = parse_folder)]
    legacy_path: FolderPath,
    /// A name by which browsers and programs may call this node over HTTP, besides addresses and names such as
    /// `node1`, `*.local` and `*.internal`; repeatable
    #[arg(long, value_name = "NAME")]
    host_name: Vec<String>,
    /// The most memory for what is arriving from mounts, other nodes and programs, in MiB; beyond it they wait
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u64).range(128..=1 << 20))]
    peer_memory: u64,
    /// Threads that serve requests. Nodes that share a machine share its cores best if together they have about as many
    /// threads as it has cores. While a disk stops answering, a node with one thread may not answer either [default:
    /// one for each core, at least two]
    #[arg(long, value_name = "N", env = "CHORDFS_THREADS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// For tests: the length of a minute in the node's history
    #[arg(long, value_name = "TIME", env = "CHORDFS_HISTORY_PERIOD", default_value = "60s", hide = true)]
    #[arg(value_parser = duration::parse_positive)]
    history_period: Duration,
    /// Let the ring call `kill` end this process
    #[arg(long)]
    allow_kill: bool,
    /// Drain the node at the first SIGTERM, see `drain`; a second one stops it at once
    #[arg(long)]
    drain_on_term: bool,
}

impl RunArgs {
    /// The number of threads that is asked for.
    pub fn threads(&self) -> Option<usize> {
        self.threads.map(usize::from)
    }
}

/// What `--join` names.
#[derive(Clone, Debug)]
enum JoinTarget {
    Node(SocketAddr),
    Ring(InvitationToken),
}

fn join_target(text: &str) -> Result<JoinTarget, String> {
    if InvitationToken::is_meant_by(text) {
        return text.parse().map(JoinTarget::Ring).map_err(|error: IdentityError| error.to_string());
    }
    ring_address(text).map(JoinTarget::Node)
}

/// A folder, as the names on the way to it.
#[derive(Clone)]
struct FolderPath(Vec<EntryName>);

fn parse_folder(text: &str) -> Result<FolderPath, String> {
    let names = path_names(text).map_err(|error| format!("{text:?} is no path of a folder: {error}"));
    let is_absolute = text.starts_with('/');
    names.and_then(|names| {
        is_absolute.then_some(FolderPath(names)).ok_or_else(|| format!("{text:?} does not begin with /"))
    })
}

fn invitation_file(path: &str) -> Result<InvitationToken, String> {
    InvitationToken::load(Path::new(path)).map_err(|error| error.to_string())
}

/// The volume of an instance is mounted here.
const AWS_DATA: &str = "/var/lib/chordfs";

impl From<RunArgs> for NodeConfig {
    /// With --aws the address is a placeholder here: it is detected on the instance.
    fn from(args: RunArgs) -> Self {
        let ip = args.ip.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let data = args.data.unwrap_or_else(|| PathBuf::from(AWS_DATA));
        let mut config = NodeConfig::new(data, SocketAddr::new(ip, args.port));
        config.listen = args.listen;
        config.id = args.id;
        config.zone = args.zone;
        config.found_namespace = args.found_namespace;
        config.root_owner = args.root_owner.unwrap_or(config.root_owner);
        config.store.capacity_bytes = args.capacity.map(|mib| mib << 20);
        config.store.reserve_bytes = args.reserve << 20;
        config.scrub.period = args.scrub_period;
        config.scrub.orphan_age = args.orphan_age;
        config.repair_rate = args.repair_rate;
        config.restart_grace = args.restart_grace;
        let mut invitation = args.invitation_file;
        for target in args.join {
            match target {
                JoinTarget::Node(address) => config.join.push(address),
                JoinTarget::Ring(token) => invitation = Some(token),
            }
        }
        config.join.extend(invitation.iter().flat_map(|token| token.nodes.iter().copied()));
        config.security = SecurityConfig {
            insecure: args.insecure,
            invitation,
            plain: args.legacy,
            plain_folder: args.legacy_path.0,
        };
        config.host_names = args.host_name;
        config.peer_memory_bytes = (args.peer_memory << 20) as usize;
        config.history_period = args.history_period;
        config.allow_kill = args.allow_kill;
        config.drain_on_term = args.drain_on_term;
        config
    }
}

pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    tokio::spawn(allocator::trim_regularly(TrimSchedule::NODE));
    #[cfg(feature = "aws")]
    if args.aws {
        let (settings, ip) = (args.aws_args.clone().checked()?, args.ip);
        return Box::pin(chordfs_aws::run(settings, args.into(), ip)).await;
    }
    lifecycle::run(args.into()).await
}
