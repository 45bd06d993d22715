//! The command line as mount(8) gives it to its helpers, checked once and turned into a [`Config`].
//!
//! mount(8) hands over every option it was given or found in fstab, including those meant for itself or for systemd;
//! these are accepted and have no effect here. Options of the kernel are passed on, chordfs's own options are parsed,
//! and any other option is a usage error, unless `-s` (sloppy) was given.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    time::Duration,
};

use chordfs_identity::InvitationToken;
use chordfs_types::byte_size;
use clap::Parser;
use fuser::MountOption;

use crate::{config_file, exit::MountError, root_map::ShownOwner, source::MountSource};

/// The environment variable that is read when the command line has no SOURCE.
pub const NODES_VARIABLE: &str = "CHORDFS_NODES";

const MIB: u64 = 1 << 20;
/// With a smaller cache, a sequential reader would evict its own read-ahead.
const MIN_CACHE_BYTES: u64 = 4 * MIB;
/// Two of the kernel's largest requests have to fit.
const MIN_DIRTY_BYTES: u64 = 2 * MIB;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub source: MountSource,
    pub target: PathBuf,
    pub foreground: bool,
    /// Does everything except mounting.
    pub fake: bool,
    pub verbose: bool,
    pub options: Options,
}

/// The options given with `-o`, or their defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub flags: KernelFlags,
    pub allow_other: bool,
    pub cache_bytes: u64,
    pub dirty_bytes: u64,
    /// An operation fails after this long without a reply.
    pub deadline: Duration,
    pub timeouts: KernelTimeouts,
    pub shown: ShownOwner,
    /// The kernel keeps the locks of programs to itself: other mounts know nothing of them.
    pub local_locks: bool,
    /// A file with an invitation to the ring.
    pub invitation: Option<PathBuf>,
    /// Which reads are noted.
    pub atime: AtimeMode,
    pub log: Option<PathBuf>,
}

/// Which reads set the time of the last access, as in mount(8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtimeMode {
    Never = 0,
    #[default]
    Relative = 1,
    Always = 2,
}

/// How long the kernel may cache attributes and names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelTimeouts {
    pub attr: Duration,
    /// For names that exist. The kernel is never allowed to cache that a name does not exist: another mount may have
    /// created it by the time of an `open`, and the kernel would not look it up again.
    pub entry: Duration,
}

impl Default for KernelTimeouts {
    fn default() -> Self {
        Self { attr: Duration::from_secs(1), entry: Duration::from_secs(1) }
    }
}

/// Flags for the kernel. If both of a pair such as `ro` and `rw` are given, the last one takes effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFlags {
    pub read_only: bool,
    pub noatime: bool,
    pub dev: bool,
    pub suid: bool,
    pub noexec: bool,
    pub sync: bool,
    pub dirsync: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountCommand {
    Mount(Box<Config>),
    /// The text of `--help` or `--version`.
    Print(String),
}

/// Parses and checks a command line.
///
/// `environment_nodes` is the value of [`NODES_VARIABLE`]. `configured` reads the ring from the configuration file; it
/// is called only if neither the command line nor the environment names a source.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    environment_nodes: Option<String>,
    configured: impl FnOnce() -> Result<Option<String>, MountError>,
) -> Result<MountCommand, MountError> {
    match MountArgs::try_parse_from(args) {
        Ok(cli) => Ok(MountCommand::Mount(Box::new(checked(cli, environment_nodes, configured)?))),
        Err(refusal) if !refusal.use_stderr() => Ok(MountCommand::Print(refusal.to_string())),
        Err(refusal) => Err(usage(&refusal)),
    }
}

impl KernelFlags {
    pub fn mount_options(&self) -> Vec<MountOption> {
        let choose = |yes, then, otherwise| if yes { then } else { otherwise };
        let mut options = vec![
            choose(self.read_only, MountOption::RO, MountOption::RW),
            choose(self.noatime, MountOption::NoAtime, MountOption::Atime),
            choose(self.dev, MountOption::Dev, MountOption::NoDev),
            choose(self.suid, MountOption::Suid, MountOption::NoSuid),
            choose(self.noexec, MountOption::NoExec, MountOption::Exec),
            choose(self.sync, MountOption::Sync, MountOption::Async),
        ];
        options.extend(self.dirsync.then_some(MountOption::DirSync));
        options
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            flags: KernelFlags::default(),
            allow_other: false,
            cache_bytes: 256 * MIB,
            dirty_bytes: 64 * MIB,
            deadline: Duration::from_secs(30),
            timeouts: KernelTimeouts::default(),
            shown: ShownOwner::default(),
            local_locks: false,
            invitation: None,
            atime: AtimeMode::default(),
            log: None,
        }
    }
}

/// Mounts a chordfs ring on a folder.
#[derive(Parser)]
#[command(name = "mount.chordfs", version, override_usage = "mount.chordfs [SOURCE] TARGET [-sfnv] [-o OPTIONS]")]
#[command(after_help = OPTIONS_HELP)]
struct MountArgs {
    /// HOST[:PORT][,HOST2[:PORT]]...[:/PATH] (port 5057 if none is given), or asg:GROUP[:PORT][:/PATH] for the nodes of
    /// an EC2 Auto Scaling group; then the folder to mount on. If SOURCE is omitted, it is read from CHORDFS_NODES, or
    /// else from the line ring = "SOURCE" of /etc/chordfs.conf.
    #[arg(value_names = ["SOURCE", "TARGET"], num_args = 1..=2, required = true)]
    places: Vec<OsString>,
    /// Mount options, separated by commas; see below
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Sloppy: ignore unknown options
    #[arg(short = 's')]
    sloppy: bool,
    /// Fake: do everything except mounting
    #[arg(short = 'f')]
    fake: bool,
    /// Accepted for mount(8) and ignored: no mtab is written
    #[arg(short = 'n')]
    no_mtab: bool,
    /// Log every request
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Stay in the foreground and log to stderr
    #[arg(long)]
    foreground: bool,
    /// The file system type, as mount(8) passes it
    #[arg(short = 't', value_name = "TYPE", hide = true)]
    kind: Option<String>,
}

const OPTIONS_HELP: &str = "\
Options for -o:
  cache=SIZE          memory for the cache of chunks read [256M]
  dirty=SIZE          memory for written bytes not yet stored; writers wait when it is full [64M]
  deadline=SECONDS    how long an operation waits for a reply before it fails [30]
  attr_timeout=SECONDS, entry_timeout=SECONDS
                      the longest that the kernel may cache attributes and names [1]; it
                      caches names only of directories that no other mount uses
  uid=N gid=N         show this user and this group as the owner of every file, by their
                      numbers; what is stored stays, and new files belong to who makes them
  umask=OCTAL         show all permissions but these
  local_locks         let locks of files hold within this mount only, which makes them faster
  invitation=FILE     file with an invitation, of which nobody else may read; SOURCE may be left out
  log=FILE            file to append the log to [none; stderr in the foreground]
  allow_other         let other users access the mount
  relatime strictatime noatime
                      which reads set the atime of a file: the first after a change and one
                      a day [relatime], each, or none
  ro rw nodev dev nosuid suid noexec exec sync async dirsync
                      as in mount(8); nodev and nosuid are the default
SIZE is in bytes, or in KiB, MiB or GiB with the suffix K, M or G.";

fn checked(
    cli: MountArgs,
    environment_nodes: Option<String>,
    configured: impl FnOnce() -> Result<Option<String>, MountError>,
) -> Result<Config, MountError> {
    let mut places = cli.places;
    let target = places.pop().ok_or_else(|| MountError::usage("no TARGET: give the folder to mount on"))?;
    let given = places.pop();
    let mut options = Options::default();
    for option in cli.options.iter().flat_map(|list| list.split(',')).filter(|option| !option.is_empty()) {
        if !options.apply(option)? && !cli.sloppy {
            return Err(MountError::usage(format!("unknown mount option {option:?}; mount.chordfs --help lists them")));
        }
    }
    let source = match &options.invitation {
        Some(file) => invited_source(given, file)?,
        None => source(given, environment_nodes, configured)?,
    };
    let (fake, verbose, foreground) = (cli.fake, cli.verbose, cli.foreground);
    Ok(Config { source, target: target.into(), foreground, fake, verbose, options })
}

/// The source of a mount with an invitation, which names nodes itself.
fn invited_source(given: Option<OsString>, file: &Path) -> Result<MountSource, MountError> {
    let token = InvitationToken::load(file).map_err(|error| MountError::usage(format!("invitation=: {error}")))?;
    if !given.as_deref().is_some_and(names_a_source) {
        return Ok(MountSource::invited_by(token));
    }
    let named = source(given, None, || Ok(None))?;
    Ok(MountSource { invitation: Some(token), ..named })
}

/// The word `none`, as fstab has it for a mount without a source, counts as no SOURCE.
fn names_a_source(given: &OsStr) -> bool {
    !given.is_empty() && given != "none"
}

/// The source of the mount.
fn source(
    given: Option<OsString>,
    environment_nodes: Option<String>,
    configured: impl FnOnce() -> Result<Option<String>, MountError>,
) -> Result<MountSource, MountError> {
    let given = given.filter(|given| names_a_source(given));
    match (given, environment_nodes.filter(|nodes| !nodes.is_empty())) {
        (Some(given), _) => match given.to_str() {
            Some(text) => MountSource::parse(text),
            None => Err(MountError::usage(format!("SOURCE {given:?} is not UTF-8"))),
        },
        (None, Some(nodes)) => MountSource::parse(&nodes),
        (None, None) => match configured()? {
            Some(ring) => MountSource::parse(&ring),
            None => Err(MountError::usage(format!(
                "no SOURCE: name a node, set {NODES_VARIABLE}, or write ring = \"...\" into {}",
                config_file::PATH
            ))),
        },
    }
}

impl Options {
    /// Applies one option. Returns false if there is no such option.
    fn apply(&mut self, option: &str) -> Result<bool, MountError> {
        match option.split_once('=') {
            Some((name, value)) => self.apply_value(name, value),
            None => Ok(self.apply_flag(option) || is_ignored(option)),
        }
    }

    fn apply_value(&mut self, name: &str, value: &str) -> Result<bool, MountError> {
        match name {
            "cache" => self.cache_bytes = size(name, value, MIN_CACHE_BYTES)?,
            "dirty" => self.dirty_bytes = size(name, value, MIN_DIRTY_BYTES)?,
            "deadline" => self.deadline = seconds(name, value, 1.0)?,
            "attr_timeout" => self.timeouts.attr = seconds(name, value, 0.0)?,
            "entry_timeout" => self.timeouts.entry = seconds(name, value, 0.0)?,
            "uid" => self.shown.uid = Some(id(name, value)?),
            "gid" => self.shown.gid = Some(id(name, value)?),
            "umask" => self.shown.umask = Some(umask(value)?),
            "invitation" => self.invitation = Some(value.into()),
            "log" if value.is_empty() => return Err(MountError::usage("log= names no file")),
            "log" => self.log = Some(value.into()),
            _ => return Ok(is_ignored(name)),
        }
        Ok(true)
    }

    fn apply_flag(&mut self, flag: &str) -> bool {
        let flags = &mut self.flags;
        match flag {
            "ro" => flags.read_only = true,
            "rw" => flags.read_only = false,
            "noatime" => (flags.noatime, self.atime) = (true, AtimeMode::Never),
            "atime" | "relatime" | "nostrictatime" => (flags.noatime, self.atime) = (false, AtimeMode::Relative),
            "strictatime" => (flags.noatime, self.atime) = (false, AtimeMode::Always),
            "dev" => flags.dev = true,
            "nodev" => flags.dev = false,
            "suid" => flags.suid = true,
            "nosuid" => flags.suid = false,
            "noexec" => flags.noexec = true,
            "exec" => flags.noexec = false,
            "sync" => flags.sync = true,
            "async" => flags.sync = false,
            "dirsync" => flags.dirsync = true,
            "defaults" => *flags = KernelFlags { suid: true, dev: true, ..KernelFlags::default() },
            // mount(8): a user's mount implies noexec, nosuid and nodev, unless later options override them.
            "user" | "users" | "owner" | "group" => (flags.noexec, flags.suid, flags.dev) = (true, false, false),
            "allow_other" => self.allow_other = true,
            "local_locks" => self.local_locks = true,
            _ => return false,
        }
        true
    }
}

/// Options for mount(8) or systemd, and those that restate a default of the kernel: accepted without effect.
fn is_ignored(name: &str) -> bool {
    const NAMES: [&str; 17] = [
        "_netdev",
        "nofail",
        "nouser",
        "noowner",
        "nogroup",
        "auto",
        "noauto",
        "default_permissions",
        "norelatime",
        "lazytime",
        "nolazytime",
        "diratime",
        "nodiratime",
        "silent",
        "loud",
        "uhelper",
        "helper",
    ];
    NAMES.contains(&name) || name.starts_with("x-") || name.starts_with("X-") || name.starts_with("comment")
}

fn size(name: &str, value: &str, least: u64) -> Result<u64, MountError> {
    let wrong = |_| MountError::usage(format!("{name}={value}: not a size such as 256M"));
    let bytes = byte_size::parse(value).map_err(wrong)?;
    if bytes < least {
        return Err(MountError::usage(format!("{name}={value}: must be at least {}M", least / MIB)));
    }
    Ok(bytes)
}

fn id(name: &str, value: &str) -> Result<u32, MountError> {
    value.parse().map_err(|_| MountError::usage(format!("{name}={value}: not the number of a user or group")))
}

fn umask(value: &str) -> Result<u16, MountError> {
    let bits = u16::from_str_radix(value, 8).ok().filter(|bits| *bits <= 0o777);
    bits.ok_or_else(|| MountError::usage(format!("umask={value}: not permissions in octal, as 022")))
}

fn seconds(name: &str, value: &str, least: f64) -> Result<Duration, MountError> {
    const A_YEAR: f64 = 365.0 * 86_400.0;
    match value.parse::<f64>() {
        Ok(number) if (least..=A_YEAR).contains(&number) => Ok(Duration::from_secs_f64(number)),
        _ => Err(MountError::usage(format!("{name}={value}: not a number of seconds, at least {least}"))),
    }
}

/// Keeps clap's first paragraph, which describes the error; the rest repeats the help.
fn usage(refusal: &clap::Error) -> MountError {
    let text = refusal.to_string();
    let head: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    MountError::usage(head.join(" ").trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Nodes;

    fn parse(args: impl IntoIterator<Item = OsString>, nodes: Option<String>) -> Result<MountCommand, MountError> {
        super::parse(args, nodes, || Ok(None))
    }

    fn parse_line(line: &str) -> Result<Config, MountError> {
        let args = ["mount.chordfs"].into_iter().chain(line.split_whitespace()).map(OsString::from);
        match parse(args, None)? {
            MountCommand::Mount(config) => Ok(*config),
            MountCommand::Print(text) => panic!("printed {text}"),
        }
    }

    fn config(line: &str) -> Config {
        parse_line(line).expect("a good command line")
    }

    fn refusal(line: &str) -> String {
        let error = parse_line(line).expect_err("a bad command line");
        assert_eq!(error.code as u8, 1, "{line}");
        assert!(!error.message.is_empty() && !error.message.contains('\n'), "{line}: {:?}", error.message);
        error.message
    }

    #[test]
    fn a_command_line_as_mount_8_passes_it_is_parsed() {
        let parsed = config("node1:/ /mnt/chord -sfnv -o rw,noatime,cache=1G,_netdev,x-systemd.automount");
        assert_eq!(parsed.target, PathBuf::from("/mnt/chord"));
        assert!(parsed.fake && parsed.verbose && !parsed.foreground);
        assert!(parsed.options.flags.noatime && !parsed.options.flags.read_only);
        assert_eq!(parsed.options.atime, AtimeMode::Never);
        let atime = |options: &str| config(&format!("node1 /mnt -o {options}")).options.atime;
        let (relative, each) = (AtimeMode::Relative, AtimeMode::Always);
        assert_eq!(["rw", "noatime,relatime", "strictatime"].map(atime), [relative, relative, each]);
        assert_eq!(parsed.options.cache_bytes, 1 << 30);
    }

    #[test]
    fn defaults_apply_without_options() {
        let config = config("node1 /mnt");
        assert_eq!(config.options, Options::default());
        assert_eq!(config.options.cache_bytes, 268_435_456);
        let options = config.options.flags.mount_options();
        assert!(options.contains(&MountOption::NoDev) && options.contains(&MountOption::NoSuid));
        assert!(options.contains(&MountOption::RW));
    }

    #[test]
    fn the_shown_owner_is_given_by_numbers() {
        let shown = config("node1 /mnt -o uid=1000,gid=100,umask=027").options.shown;
        assert_eq!(shown, ShownOwner { uid: Some(1000), gid: Some(100), umask: Some(0o027) });
    }

    #[test]
    fn the_last_option_of_a_pair_takes_effect_across_several_o_arguments() {
        let config = config("node1 /mnt -o ro,suid -o rw,nosuid,exec,noexec,deadline=2.5,log=/tmp/l");
        let flags = &config.options.flags;
        assert!(!flags.read_only && !flags.suid && flags.noexec);
        assert_eq!(config.options.deadline, Duration::from_millis(2500));
        assert_eq!(config.options.log, Some("/tmp/l".into()));
        assert!(!parse_line("n /mnt -o user,exec").expect("good").options.flags.noexec);
        assert!(parse_line("n /mnt -o user").expect("good").options.flags.noexec);
    }

    #[test]
    fn without_a_source_the_environment_names_the_nodes() {
        for line in [&["/mnt"][..], &["none", "/mnt"], &["", "/mnt"]] {
            let args = || ["mount.chordfs"].iter().chain(line).map(OsString::from);
            let Ok(MountCommand::Mount(config)) = parse(args(), Some("a,b:7".into())) else { panic!("{line:?}") };
            assert!(matches!(&config.source.nodes, Nodes::Named(nodes) if nodes.len() == 2));
            let error = parse(args(), None).expect_err("no source");
            assert!(error.message.contains(NODES_VARIABLE) && error.message.contains(config_file::PATH));
            let configured = || Ok(Some("asg:G".to_owned()));
            let Ok(MountCommand::Mount(config)) = super::parse(args(), None, configured) else { panic!("{line:?}") };
            assert_eq!(config.source.nodes, Nodes::Group { name: "G".into(), port: 5057 });
        }
    }

    #[test]
    fn every_option_of_mount_8_is_accepted() {
        let all = "defaults,ro,rw,atime,noatime,relatime,strictatime,diratime,nodiratime,dev,nodev,suid,nosuid,exec,\
                   noexec,sync,async,dirsync,user,users,nouser,owner,group,auto,noauto,nofail,_netdev,lazytime,silent,\
                   default_permissions,allow_other,x-gvfs-show,comment=x,X-mount.mkdir,uhelper=u";
        assert!(config(&format!("node1 /mnt -t chordfs -o {all}")).options.allow_other);
    }

    #[test]
    fn a_usage_error_is_one_line() {
        assert!(refusal("node1 /mnt -o nosuchthing").contains("nosuchthing"));
        assert!(refusal("node1 /mnt -o nosuch=1").contains("nosuch"));
        assert!(refusal("node1 /mnt -o cache=lots").contains("cache=lots"));
        assert!(refusal("node1 /mnt -o cache=99999999999999999999").contains("cache="));
        assert!(refusal("node1 /mnt -o cache=1K").contains("at least 4M"));
        assert!(refusal("node1 /mnt -o deadline=0").contains("deadline"));
        assert!(refusal("node1 /mnt -o deadline=nan").contains("deadline"));
        assert!(refusal("node1 /mnt -o log=").contains("log"));
        assert!(refusal("node1 /mnt -o uid=alice").contains("uid=alice"));
        assert!(refusal("node1 /mnt -o umask=8").contains("umask=8"));
        assert!(refusal("node1 /mnt -z").contains("-z"));
        assert!(refusal("a b c").contains("'c'"));
        refusal("");
        assert!(refusal("a:99999 /mnt").contains("99999"));
    }

    #[test]
    fn sloppy_ignores_unknown_options_but_not_wrong_values() {
        config("node1 /mnt -s -o nosuchthing,nosuch=1");
        refusal("node1 /mnt -s -o cache=lots");
    }

    #[test]
    fn help_and_version_are_printed() {
        for (flag, part) in [("--help", "dirty=SIZE"), ("--version", env!("CARGO_PKG_VERSION"))] {
            let Ok(MountCommand::Print(text)) = parse(["mount.chordfs", flag].map(OsString::from), None) else {
                panic!("{flag}")
            };
            assert!(text.contains(part), "{text}");
        }
    }
}
