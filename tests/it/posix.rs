//! What POSIX promises for each operation, on one mount.

use std::{
    collections::HashSet,
    ffi::CString,
    fs::{self, File, FileTimes, OpenOptions, Permissions},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    ops::Deref,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use harness::{Cluster, TempMount, programs::shell, tree, wait::wait_for};
use tempfile::TempDir;

mod atimes;
mod holes;
mod xattrs;

/// A folder for one test, on a ring and a mount that concurrent tests share; the last test to end stops them.
struct Folder {
    path: PathBuf,
    shared: Arc<SharedMount>,
}

struct SharedMount {
    // Dropped first: a mount without its ring could not flush.
    mount: TempMount,
    cluster: Cluster,
}

fn folder(name: &str) -> Folder {
    static SHARED: Mutex<Weak<SharedMount>> = Mutex::new(Weak::new());
    let mut known = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let shared = known.upgrade().unwrap_or_else(|| {
        let cluster = Cluster::start(3);
        Arc::new(SharedMount { mount: TempMount::with_options(&cluster, &["allow_other"]), cluster })
    });
    *known = Arc::downgrade(&shared);
    let path = shared.mount.join(name);
    fs::create_dir(&path).unwrap();
    Folder { path, shared }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

/// Runs the script in a folder of the mount and in one on a local disk, and compares what it prints.
fn prints_the_same_as_on_a_local_disk(folder: &Folder, script: &str) {
    let local = TempDir::with_prefix_in("chordfs-local-", env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::set_permissions(local.path(), Permissions::from_mode(0o755)).unwrap();
    let (expected, seen) = (shell(script, local.path()).ok(), shell(script, folder).ok());
    assert!(!expected.is_empty());
    assert_eq!(seen, expected);
}

fn kind(result: std::io::Result<impl Sized>) -> ErrorKind {
    result.err().expect("an error").kind()
}

#[test]
fn truncating_and_growing_shows_zeros() {
    let folder = folder("truncate");
    let path = folder.join("f");
    fs::write(&path, [b'x'; 10_000]).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.set_len(5_000).unwrap();
    file.set_len(9_000).unwrap();
    let contents = fs::read(&path).unwrap();
    assert_eq!(contents.len(), 9_000);
    assert!(contents[..5_000].iter().all(|byte| *byte == b'x') && contents[5_000..].iter().all(|byte| *byte == 0));
    file.set_len(0).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    file.write_all_at(b"end", 1_000_000).unwrap();
    assert_eq!(fs::read(&path).unwrap()[999_990..], *b"\0\0\0\0\0\0\0\0\0\0end");
}

#[test]
fn random_writes_read_back() {
    let folder = folder("random");
    let path = folder.join("f");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    let mut model = vec![0; 200_000];
    let random = tree::bytes(11, 4096);
    for step in random.chunks_exact(4) {
        let at = u32::from_le_bytes([step[0], step[1], step[2], 0]) as usize % 190_000;
        let piece = tree::bytes(u64::from(step[3]), 1 + usize::from(step[3]) * 37);
        file.write_all_at(&piece, at as u64).unwrap();
        model[at..at + piece.len()].copy_from_slice(&piece);
        if step[3] % 16 == 0 {
            file.sync_all().unwrap();
        }
    }
    model.truncate(file.metadata().unwrap().len() as usize);
    drop(file);
    assert!(fs::read(&path).unwrap() == model);
}

#[test]
fn rename_replaces_and_refuses() {
    let folder = folder("rename");
    fs::write(folder.join("a"), "a").unwrap();
    fs::write(folder.join("b"), "b").unwrap();
    let mut open = File::open(folder.join("b")).unwrap();
    fs::rename(folder.join("a"), folder.join("b")).unwrap();
    assert_eq!(fs::read_to_string(folder.join("b")).unwrap(), "a");
    let mut old = String::new();
    open.read_to_string(&mut old).unwrap();
    assert_eq!(old, "b", "the replaced file stays readable where it is open");
    fs::create_dir_all(folder.join("d/e")).unwrap();
    assert_eq!(kind(fs::rename(folder.join("d"), folder.join("d/e/f"))), ErrorKind::InvalidInput);
    assert_eq!(kind(fs::rename(folder.join("b"), folder.join("d"))), ErrorKind::IsADirectory);
    fs::create_dir(folder.join("g")).unwrap();
    assert_eq!(kind(fs::rename(folder.join("g"), folder.join("d"))), ErrorKind::DirectoryNotEmpty);
    fs::rename(folder.join("d"), folder.join("g")).unwrap();
    assert!(folder.join("g/e").is_dir());
}

#[test]
fn directories_count_their_links_and_are_removed_only_when_empty() {
    let folder = folder("dirs");
    fs::create_dir(folder.join("d")).unwrap();
    fs::create_dir(folder.join("d/sub")).unwrap();
    assert_eq!(fs::metadata(folder.join("d")).unwrap().nlink(), 3);
    assert_eq!(kind(fs::remove_dir(folder.join("d"))), ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind(fs::create_dir(folder.join("d"))), ErrorKind::AlreadyExists);
    fs::remove_dir(folder.join("d/sub")).unwrap();
    fs::remove_dir(folder.join("d")).unwrap();
    assert_eq!(kind(fs::remove_dir(folder.join("d"))), ErrorKind::NotFound);
    fs::write(folder.join("f"), "").unwrap();
    assert_eq!(kind(fs::read_dir(folder.join("f"))), ErrorKind::NotADirectory);
}

#[test]
fn hard_links_share_one_file() {
    let folder = folder("links");
    fs::write(folder.join("a"), "one").unwrap();
    fs::hard_link(folder.join("a"), folder.join("b")).unwrap();
    OpenOptions::new().append(true).open(folder.join("b")).unwrap().write_all(b" two").unwrap();
    assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "one two");
    let (a, b) = (fs::metadata(folder.join("a")).unwrap(), fs::metadata(folder.join("b")).unwrap());
    assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
    fs::remove_file(folder.join("a")).unwrap();
    assert_eq!(fs::metadata(folder.join("b")).unwrap().nlink(), 1);
    assert_eq!(fs::read_to_string(folder.join("b")).unwrap(), "one two");
}

#[test]
fn symlinks_keep_their_targets() {
    let folder = folder("symlinks");
    symlink("target/does not exist", folder.join("s")).unwrap();
    assert_eq!(fs::read_link(folder.join("s")).unwrap(), Path::new("target/does not exist"));
    assert_eq!(kind(fs::read(folder.join("s"))), ErrorKind::NotFound);
    assert_eq!(fs::symlink_metadata(folder.join("s")).unwrap().len(), 21);
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    let folder = folder("unlinked");
    let path = folder.join("f");
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.write_all(&[1; 50_000]).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(!path.exists());
    file.write_all(&[2; 50_000]).unwrap();
    file.sync_all().unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut back = Vec::new();
    file.read_to_end(&mut back).unwrap();
    assert!(back.len() == 100_000 && back[..50_000].iter().all(|b| *b == 1) && back[50_000..].iter().all(|b| *b == 2));
    assert_eq!(file.metadata().unwrap().nlink(), 0);
}

#[test]
fn attributes_are_kept() {
    let folder = folder("attributes");
    let path = folder.join("f");
    let file = File::create(&path).unwrap();
    (&file).write_all(b"contents").unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    file.set_times(FileTimes::new().set_modified(time).set_accessed(time)).unwrap();
    drop(file);
    fs::set_permissions(&path, Permissions::from_mode(0o4751)).unwrap();
    std::os::unix::fs::chown(&path, Some(1234), Some(5678)).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert_eq!(found.modified().unwrap(), time, "a time that was set outlives the close");
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (1234, 5678, 0o751));
    assert_eq!((found.len(), found.blocks() > 0), (8, true));
}

#[test]
fn permissions_hold_for_other_users() {
    let folder = folder("permissions");
    fs::write(folder.join("secret"), "s").unwrap();
    fs::set_permissions(folder.join("secret"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&*folder, Permissions::from_mode(0o755)).unwrap();
    let script = |command: &str| format!("setpriv --reuid=65534 --regid=65534 --clear-groups {command}");
    assert_ne!(shell(&script("cat secret"), &folder).code, Some(0));
    assert_ne!(shell(&script("touch new"), &folder).code, Some(0));
    fs::set_permissions(folder.join("secret"), Permissions::from_mode(0o644)).unwrap();
    assert_eq!(shell(&script("cat secret"), &folder).ok(), "s");
}

#[test]
fn large_directories_list_each_name_once() {
    let folder = folder("large");
    for name in 0..3_000 {
        File::create(folder.join(format!("{name}"))).unwrap();
    }
    let names: Vec<_> = fs::read_dir(&*folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3_000);
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), 3_000);
    fs::remove_dir_all(&*folder).unwrap();
    assert!(!folder.exists());
}

#[test]
fn appending_goes_to_the_end() {
    let folder = folder("append");
    let path = folder.join("f");
    for piece in 0..50 {
        let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        writeln!(file, "line {piece}").unwrap();
    }
    let lines = fs::read_to_string(&path).unwrap();
    assert!(lines.lines().enumerate().all(|(at, line)| line == format!("line {at}")) && lines.lines().count() == 50);
}

#[test]
fn writes_to_mapped_memory_change_the_file() {
    let folder = folder("mapped");
    let path = folder.join("f");
    fs::write(&path, vec![b'a'; 20_000]).unwrap();
    let script = "import mmap\nwith open('f', 'r+b') as f:\n m = mmap.mmap(f.fileno(), 0)\n m[5000:5003] = b'xyz'\n m.flush()\n m.close()";
    shell(&format!("python3 -c \"{script}\""), &folder).ok();
    let contents = fs::read(&path).unwrap();
    assert_eq!((&contents[4_999..5_004], contents.len()), (&b"axyza"[..], 20_000));
}

#[test]
fn names_have_limits() {
    let folder = folder("names");
    fs::write(folder.join("n".repeat(255)), "long").unwrap();
    assert_eq!(kind(fs::write(folder.join("n".repeat(256)), "too long")), ErrorKind::InvalidFilename);
    fs::write(folder.join("späße und \u{1F600} _chunk_3"), "x").unwrap();
    fs::write(folder.join("line\nbreak"), "x").unwrap();
    assert_eq!(fs::read_dir(&*folder).unwrap().count(), 3);
}

#[test]
fn statfs_reports_free_space() {
    let folder = folder("statfs");
    let path = CString::new(folder.to_str().unwrap()).unwrap();
    let found = nix::sys::statvfs::statvfs(path.as_c_str()).unwrap();
    assert!(found.blocks() > 0 && found.blocks_available() > 0 && found.name_max() == 255, "{found:?}");
}

#[test]
fn nodes_that_share_a_disk_count_it_once() {
    let folder = folder("shared-disk");
    let free = |path: &Path| {
        let found = nix::sys::statvfs::statvfs(path).unwrap();
        found.blocks_available() * found.fragment_size()
    };
    // Three copies of each byte go to one disk. Other tests write there at the same time.
    wait_for("the mount reports a third of the disk", Duration::from_secs(30), || {
        let (disk, mount) = (free(folder.shared.cluster.folder()), free(&folder));
        let close = mount > disk / 4 && mount < disk / 5 * 2;
        close.then_some(()).ok_or_else(|| format!("{mount} bytes of {disk}"))
    });
}

/// A path of more than 4095 bytes cannot be named in one call, but reached step by step.
#[test]
fn folders_are_as_deep_as_one_likes() {
    let script = "python3 -c '
import os
for number in range(40):
    os.mkdir(\"d\" * 200); os.chdir(\"d\" * 200)
for name in (\"file\", \"n\" * 255):
    open(name, \"w\").write(\"deep \" + name[:9])
    os.rename(name, name[:-1] + \"x\"); print(open(name[:-1] + \"x\").read(), sorted(os.listdir(\".\")))
os.mkfifo(\"fifo\"); os.symlink(\"n\" * 4000, \"link\"); os.link(\"filx\", \"named\"); print(os.stat(\"named\").st_nlink)
for number in range(40): os.chdir(\"..\")
'; find . | wc -l; rm -rf ddd*; ls";
    prints_the_same_as_on_a_local_disk(&folder("deep"), script);
}
