//! A file system of a chosen size at a node's folder: in memory where a test fills it, in an image file on a real disk
//! where a test slows it down.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statvfs::statvfs,
};

use crate::programs;

/// The file that takes up the space.
const BALLAST: &str = "ballast";

/// The kind of a node's disk, and its size in MiB.
#[derive(Clone, Copy, Debug)]
pub enum Disk {
    Memory(u64),
    Image(u64),
}

impl Disk {
    #[track_caller]
    pub fn attach(self, folder: &Path) {
        fs::create_dir_all(folder).expect("the disk's folder");
        match self {
            Self::Memory(mib) => attach_memory(folder, mib),
            Self::Image(mib) => attach_image(folder, mib),
        }
    }
}

#[track_caller]
fn attach_memory(folder: &Path, mib: u64) {
    let size = format!("size={mib}m");
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
        .expect("a file system in memory");
}

#[track_caller]
fn attach_image(folder: &Path, mib: u64) {
    let image = folder.with_extension("img");
    File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("the disk's image");
    let root = Path::new("/");
    programs::run("mkfs.ext4", &[&"-q", &"-F", &image], root).ok();
    programs::run("mount", &[&"-o", &"loop", &image, &folder], root).ok();
}

/// A frozen disk: writers wait until this is dropped.
pub struct Frozen<'a>(&'a Path);

#[track_caller]
pub fn freeze(folder: &Path) -> Frozen<'_> {
    programs::run("fsfreeze", &[&"--freeze", &folder], Path::new("/")).ok();
    Frozen(folder)
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let thawed = programs::run("fsfreeze", &[&"--unfreeze", &self.0], Path::new("/"));
        if thawed.code != Some(0) {
            eprintln!("{} stays frozen: {}", self.0.display(), thawed.stderr);
        }
    }
}

pub fn detach(folder: &Path) {
    let _ = umount2(folder, MntFlags::MNT_DETACH);
}

/// Takes up all but `leave` bytes, including what has become free since the last call.
#[track_caller]
pub fn fill(folder: &Path, leave: u64) {
    let file = OpenOptions::new().create(true).append(true).open(folder.join(BALLAST));
    let mut file = file.expect("the ballast's file");
    while let Some(more) = free_bytes(folder).checked_sub(leave).filter(|more| *more > 0) {
        match file.write(&vec![0xBA; more.min(1 << 20) as usize]) {
            Ok(_) => {}
            // The node has used the space first.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return,
            Err(error) => panic!("filling {}: {error}", folder.display()),
        }
    }
}

#[track_caller]
pub fn empty(folder: &Path) {
    File::create(folder.join(BALLAST)).expect("the ballast can be removed");
}

#[track_caller]
fn free_bytes(folder: &Path) -> u64 {
    let disk = statvfs(folder).expect("the disk reports its free space");
    disk.blocks_available() * disk.fragment_size()
}
