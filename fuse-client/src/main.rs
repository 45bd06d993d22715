//! `mount.chordfs`: reads the command line, checks it, goes into the background and starts the mount.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
    process,
    time::Duration,
};

use chordfs_identity::forbid_core_dumps;
use chordfs_net::allocator;
use fuse_client::{
    config_file,
    daemon::{self, ForkSide, Reporter},
    exit::MountError,
    mount, mountpoint,
    options::{self, Config, MountCommand},
};
use tracing_subscriber::EnvFilter;

/// How long the runtime waits for detached tasks when the process exits.
const RUNTIME_GRACE: Duration = Duration::from_secs(1);

fn main() {
    allocator::limit();
    let nodes = std::env::var(options::NODES_VARIABLE).ok();
    let code = match options::parse(std::env::args_os(), nodes, configured_ring) {
        Ok(MountCommand::Print(text)) => print(&text),
        Ok(MountCommand::Mount(config)) => start(&config),
        Err(error) => fail(error.code as u8, &error.message),
    };
    process::exit(code.into());
}

/// Returns the ring that the configuration file names.
fn configured_ring() -> Result<Option<String>, MountError> {
    let path = std::env::var_os(config_file::PATH_VARIABLE).unwrap_or_else(|| config_file::PATH.into());
    config_file::ring(Path::new(&path))
}

/// Mounts as configured and returns the exit code.
fn start(config: &Config) -> u8 {
    if !config.fake && mountpoint::detach_dead(&config.target) > 0 {
        // Standard error may be closed or full, and the mount does not depend on it.
        let _ = writeln!(io::stderr(), "mount.chordfs: detached a mount whose process had died");
    }
    let target = match mountpoint::check_target(&config.target).and_then(|path| mountpoint::check_fuse().map(|()| path))
    {
        Ok(target) => target,
        Err(error) => return fail(error.code as u8, &error.message),
    };
    let mut reporter = match background_unless_asked(config) {
        Ok(ForkSide::Child(reporter)) => reporter,
        Ok(ForkSide::Parent(report)) if report.code == 0 => return 0,
        Ok(ForkSide::Parent(report)) => return fail(report.code, &report.message),
        Err(error) => return fail(error.code as u8, &error.message),
    };
    match run(config, &target, &mut reporter) {
        Ok(()) => 0,
        Err(error) if reporter.failed(&error) => error.code as u8,
        Err(error) => fail(error.code as u8, &error.message),
    }
}

fn background_unless_asked(config: &Config) -> Result<ForkSide, MountError> {
    if config.foreground || config.fake {
        return Ok(ForkSide::Child(Reporter::foreground()));
    }
    daemon::fork_into_background()
}

fn run(config: &Config, target: &Path, reporter: &mut Reporter) -> Result<(), MountError> {
    start_log(config)?;
    forbid_core_dumps().map_err(|error| MountError::system(format!("forbid core dumps: {error}")))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| MountError::system(format!("start the runtime: {error}")))?;
    std::env::set_current_dir("/").map_err(|error| MountError::system(format!("go to /: {error}")))?;
    let outcome = runtime.block_on(mount::run(config, target, reporter));
    runtime.shutdown_timeout(RUNTIME_GRACE);
    outcome
}

/// Logs to the file that `-o log=` names; otherwise to stderr in the foreground, and nowhere in the background.
fn start_log(config: &Config) -> Result<(), MountError> {
    let level = if config.verbose { "debug,fuser=info" } else { "info,fuser=error" };
    let filter = EnvFilter::try_from_env("CHORDFS_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // A line that cannot be written, because the disk of the log is full, must not end the thread that logs it: with
    // internal errors on, the subscriber reports them by `eprintln!`, which panics.
    let log = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    match &config.options.log {
        Some(path) => {
            let file = OpenOptions::new().append(true).create(true).open(path);
            let file = file.map_err(|error| MountError::system(format!("open log {}: {error}", path.display())))?;
            log.with_ansi(false).with_writer(file).init();
        }
        None if config.foreground => log.with_writer(io::stderr).init(),
        None => {}
    }
    Ok(())
}

fn print(text: &str) -> u8 {
    match write!(io::stdout(), "{text}") {
        Ok(()) => 0,
        Err(_) => 2,
    }
}

fn fail(code: u8, message: &str) -> u8 {
    // Standard error may be closed or full; the exit code reports the failure all the same.
    let _ = writeln!(io::stderr(), "mount.chordfs: {message}");
    code
}
