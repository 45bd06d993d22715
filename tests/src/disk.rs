//! Disks that a test may fill: a file system in memory, of a size of its own, at a node's folder.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statvfs::statvfs,
};

/// Takes the room that a test leaves to nobody.
const BALLAST: &str = "ballast";

#[track_caller]
pub fn attach(folder: &Path, mib: u64) {
    fs::create_dir_all(folder).expect("the disk's folder");
    let size = format!("size={mib}m");
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
        .expect("a file system in memory");
}

pub fn detach(folder: &Path) {
    let _ = umount2(folder, MntFlags::MNT_DETACH);
}

/// Takes all but `leave` bytes; whatever came free since the last time, too.
#[track_caller]
pub fn fill(folder: &Path, leave: u64) {
    let file = OpenOptions::new().create(true).append(true).open(folder.join(BALLAST));
    let mut file = file.expect("the ballast's file");
    while let Some(more) = free_bytes(folder).checked_sub(leave).filter(|more| *more > 0) {
        match file.write(&vec![0xBA; more.min(1 << 20) as usize]) {
            Ok(_) => {}
            // Somebody else took it.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return,
            Err(error) => panic!("filling {}: {error}", folder.display()),
        }
    }
}

#[track_caller]
pub fn empty(folder: &Path) {
    File::create(folder.join(BALLAST)).expect("the ballast can be thrown off");
}

#[track_caller]
fn free_bytes(folder: &Path) -> u64 {
    let disk = statvfs(folder).expect("the disk says what is free");
    disk.blocks_available() * disk.fragment_size()
}
