//! The mount point: checks before mounting, the device mounted there, and unmounting.
//!
//! fuser's own unmounting is not used: it may unmount twice, and so remove a file system that another program has
//! mounted on the same folder in between. Here only the file system that this process mounted is unmounted, identified
//! by its device number.

use std::{
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    unistd::geteuid,
};
use tracing::{debug, warn};

use crate::exit::MountError;

const FUSE_DEVICE: &str = "/dev/fuse";
/// The kind of file system that this program mounts.
const KIND: &[u8] = b"fuse.chordfs";
/// How far the kernel reads ahead of a sequential reader: enough for read requests to be as large as write requests.
const READ_AHEAD_KIB: u32 = 1024;

/// The kernel's name of a mounted file system, `MAJOR:MINOR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device(String);

/// Detaches what is left on `target` of mounts of this program whose processes have died, and returns how many there
/// were. A mount whose process lives is never touched: it opens its folder without a request to the ring, so that
/// neither a slow ring nor one that is away makes it look dead.
pub fn detach_dead(target: &Path) -> usize {
    /// More than anyone stacks on one folder.
    const LIMIT: usize = 16;
    let detach = |_| {
        let (path, device) = dead_mount(target)?;
        unmount(&path, &device).inspect_err(|error| warn!("unmount {}: {error}", path.display())).ok()
    };
    (0..LIMIT).map_while(detach).count()
}

/// The topmost mount on `target`, if it is one of this program whose process has died.
fn dead_mount(target: &Path) -> Option<(PathBuf, Device)> {
    // A dead mount may not even be resolved, but the folder above it can.
    let above = || Some(target.parent()?.canonicalize().ok()?.join(target.file_name()?));
    let path = target.canonicalize().ok().or_else(above)?;
    let mounts = fs::read("/proc/self/mountinfo").ok()?;
    let top = topmost(&mounts, &path).filter(|top| top.kind == KIND)?;
    let died = |error: io::Error| error.raw_os_error() == Some(libc::ENOTCONN);
    fs::read_dir(&path).is_err_and(died).then_some((path, top.device))
}

/// Checks that `target` can be mounted on, and returns its absolute path.
pub fn check_target(target: &Path) -> Result<PathBuf, MountError> {
    let shown = target.display();
    let path = target.canonicalize().map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => MountError::failure(format!("mount point {shown} does not exist")),
        Some(libc::ENOTCONN) => MountError::failure(format!(
            "mount point {shown} has a mount whose process has died; unmount it first (umount {shown})"
        )),
        _ => MountError::failure(format!("mount point {shown}: {error}")),
    })?;
    if mounted_device(&path).is_some() {
        return Err(MountError::failure(format!("mount point {shown} is already mounted")));
    }
    if !path.is_dir() {
        return Err(MountError::failure(format!("mount point {shown} is not a folder")));
    }
    match fs::read_dir(&path).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(path),
        Ok(false) => Err(MountError::failure(format!("mount point {shown} is not empty"))),
        Err(error) => Err(MountError::failure(format!("cannot read mount point {shown}: {error}"))),
    }
}

/// Checks that this machine supports FUSE and that this user is able to mount.
pub fn check_fuse() -> Result<(), MountError> {
    if !Path::new(FUSE_DEVICE).exists() {
        return Err(MountError::system(format!("{FUSE_DEVICE} is missing: load the kernel module (modprobe fuse)")));
    }
    if !geteuid().is_root() && fusermount().is_none() {
        return Err(MountError::system("fusermount3 is missing, and only root can mount without it: install fuse3"));
    }
    Ok(())
}

/// The device of the topmost file system mounted at exactly this path.
pub fn mounted_device(path: &Path) -> Option<Device> {
    let mounts = fs::read("/proc/self/mountinfo").inspect_err(|error| warn!("read /proc/self/mountinfo: {error}"));
    topmost(&mounts.ok()?, path).map(|top| top.device)
}

/// Unmounts `device` from `path`, if it is still the topmost mount there. Files that programs have open stay usable.
pub fn unmount(path: &Path, device: &Device) -> io::Result<()> {
    if mounted_device(path).as_ref() != Some(device) {
        debug!("{} is unmounted already", path.display());
        return Ok(());
    }
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => unmount_as_user(path),
        Err(error) => Err(error.into()),
    }
}

/// Aborts the requests that programs still wait for in a detached mount, so that this process can exit: otherwise a
/// thread that invalidates a page in the kernel waits for the reader of that page, and the reader waits for this
/// process. Works only where the control file system of FUSE is mounted, as it is under systemd. Call it only while the
/// mount is known to exist: afterwards its device number may have been assigned to another mount.
pub fn abort(device: &Device) {
    let Some((_, minor)) = device.0.split_once(':') else { return };
    let switch = format!("/sys/fs/fuse/connections/{minor}/abort");
    if let Err(error) = fs::write(&switch, "1") {
        debug!("{switch}: {error}");
    }
}

/// Raises the kernel's read-ahead. Only root may do so; otherwise sequential reads arrive in smaller requests.
pub fn raise_read_ahead(device: &Device) {
    let setting = format!("/sys/class/bdi/{}/read_ahead_kb", device.0);
    if let Err(error) = fs::write(&setting, READ_AHEAD_KIB.to_string()) {
        debug!("{setting} is left unchanged: {error}");
    }
}

fn unmount_as_user(path: &Path) -> io::Result<()> {
    let helper = fusermount().ok_or_else(|| io::Error::other("fusermount3 is missing: install fuse3"))?;
    let output = Command::new(helper).args(["-u", "-z", "--"]).arg(path).stdin(Stdio::null()).output()?;
    if output.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

/// Finds the helper in the places where fuser looks for it.
fn fusermount() -> Option<PathBuf> {
    if let Some(set) = std::env::var_os("FUSERMOUNT_PATH") {
        return Some(set.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(["/bin".into(), "/sbin".into()]).collect();
    ["fusermount3", "fusermount"]
        .iter()
        .find_map(|name| folders.iter().map(|dir| dir.join(name)).find(|at| at.is_file()))
}

#[derive(Debug, PartialEq, Eq)]
struct MountedFileSystem {
    device: Device,
    /// As in `mount -t`.
    kind: Vec<u8>,
}

/// Line: `ID PARENT MAJOR:MINOR ROOT MOUNT_POINT OPTIONS TAG... - KIND SOURCE ...`; of several mounts on one path, the
/// last line is the topmost.
fn topmost(mountinfo: &[u8], path: &Path) -> Option<MountedFileSystem> {
    let lines = mountinfo.split(|&byte| byte == b'\n');
    let mut found = lines.filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let device = Device(String::from_utf8_lossy(fields.nth(2)?).into_owned());
        let is_here = unescaped(fields.nth(1)?) == path.as_os_str().as_bytes();
        let kind = fields.skip_while(|field| *field != b"-").nth(1).unwrap_or_default().to_vec();
        is_here.then_some(MountedFileSystem { device, kind })
    });
    found.next_back()
}

/// Decodes a field: the kernel writes space, tab, newline and backslash as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &after[3..];
            }
            None => {
                plain.push(first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &[u8] = b"22 1 0:20 / / rw - ext4 /dev/vda rw\n\
        30 22 0:41 / /mnt/chord rw - fuse.chordfs n1 rw\n\
        31 22 0:42 / /mnt/a\\040b\\134 rw - tmpfs t rw\n\
        32 30 0:43 / /mnt/chord rw - tmpfs t rw\n";

    fn device(path: &str) -> Option<String> {
        topmost(MOUNTINFO, Path::new(path)).map(|top| top.device.0)
    }

    #[test]
    fn the_topmost_mount_is_found() {
        assert_eq!(device("/mnt/chord").as_deref(), Some("0:43"));
        assert_eq!(device("/mnt"), None);
    }

    #[test]
    fn the_kind_of_a_mount_is_found() {
        let kind = |mounts: &[u8]| topmost(mounts, Path::new("/mnt/chord")).map(|top| top.kind);
        assert_eq!(kind(MOUNTINFO).as_deref(), Some(&b"tmpfs"[..]), "it covers the mount below");
        let tagged = b"30 22 0:41 / /mnt/chord rw,nosuid shared:7 master:1 - fuse.chordfs n1 rw\n";
        assert_eq!(kind(tagged).as_deref(), Some(KIND));
    }

    #[test]
    fn nothing_is_detached_from_a_folder_without_a_dead_mount() {
        assert_eq!(detach_dead(Path::new("/proc")), 0);
        assert!(mounted_device(Path::new("/proc")).is_some());
        assert_eq!(detach_dead(Path::new("/nowhere/at/all")), 0);
    }

    #[test]
    fn escaped_paths_are_found() {
        assert_eq!(device("/mnt/a b\\").as_deref(), Some("0:42"));
    }

    #[test]
    fn malformed_lines_are_skipped() {
        assert_eq!(topmost(b"1 2\n\\\n1 2 3 4\n", Path::new("/")), None);
        assert_eq!(unescaped(b"a\\04"), b"a\\04");
    }

    #[test]
    fn a_mount_point_is_an_empty_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(check_target(folder.path()).is_ok());
        let file = folder.path().join("file");
        let message = |path: &Path| {
            let error = check_target(path).expect_err("refused");
            assert_eq!(error.code as u8, 32);
            error.message
        };
        assert!(message(&file).contains("does not exist"));
        fs::write(&file, "x").expect("written");
        assert!(message(&file).contains("not a folder"));
        assert!(message(folder.path()).contains("not empty"));
        assert!(message(Path::new("/proc")).contains("already mounted"));
    }

    #[test]
    fn only_the_mount_of_this_process_is_unmounted() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(unmount(folder.path(), &Device("0:999999".into())).is_ok());
        assert!(unmount(Path::new("/proc"), &Device("0:999999".into())).is_ok(), "left alone");
        assert!(mounted_device(Path::new("/proc")).is_some());
    }
}
