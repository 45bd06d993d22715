//! A tree of folders, files and links is copied into the own mount, compared through the other one, moved, compared
//! again and removed.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{FinalCheck, Mounts, Record, overwrites::close};
use crate::tree;

enum TreeEntry {
    Folder,
    File(Vec<u8>),
    Link(PathBuf),
}

pub(super) struct Trees {
    mounts: Mounts,
    /// By path below the top of the tree, folders before their contents.
    entries: Vec<(PathBuf, TreeEntry)>,
}

impl Trees {
    /// File sizes resemble those of a source tree: most are small, a few are large.
    pub(super) fn new(mounts: Mounts, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let folders = ["", "src", "src/deep", "src/deep/er", "empty"];
        let mut entries: Vec<_> = folders.iter().map(|folder| (PathBuf::from(folder), TreeEntry::Folder)).collect();
        for file in 0..24_u64 {
            let ceiling = if file % 8 == 7 { 300_000 } else { 9_000 };
            let contents = tree::bytes(seed ^ file << 32, random.random_range(0..ceiling));
            entries
                .push((Path::new(folders[file as usize % 4]).join(format!("file-{file}")), TreeEntry::File(contents)));
        }
        entries.push(("src/link".into(), TreeEntry::Link("../file-0".into())));
        Self { mounts, entries }
    }

    pub(super) fn run(self, record: &Record) -> FinalCheck {
        let mut last = None;
        for round in 0.. {
            if record.is_stopped() {
                break;
            }
            let name = format!("tree-{}-{round}", self.mounts.label);
            if self.one_round(record, &name).is_some() {
                let moved = format!("moved-{name}");
                // A failed removal is in the record.
                last.replace(moved).map(|old| self.remove(record, &self.mounts.own.join(old)));
            }
        }
        Box::new(move |record, fresh| {
            let _ = last.map(|name| self.compare(record, &fresh.join(name)));
        })
    }

    fn one_round(&self, record: &Record, name: &str) -> Option<()> {
        let moved = format!("moved-{name}");
        self.copy(record, &self.mounts.own.join(name))?;
        self.compare(record, &self.mounts.other.join(name))?;
        let (from, to) = (self.mounts.own.join(name), self.mounts.own.join(&moved));
        record.attempt("rename", &from, || fs::rename(&from, &to))?;
        self.compare(record, &to)
    }

    fn copy(&self, record: &Record, top: &Path) -> Option<()> {
        for (name, entry) in &self.entries {
            let path = top.join(name);
            match entry {
                TreeEntry::Folder => record.attempt("mkdir", &path, || fs::create_dir(&path))?,
                TreeEntry::File(contents) => record.attempt("copy", &path, || write_file(&path, contents))?,
                TreeEntry::Link(to) => record.attempt("symlink", &path, || symlink(to, &path))?,
            }
        }
        record.keep(top)
    }

    fn compare(&self, record: &Record, top: &Path) -> Option<()> {
        for (name, entry) in &self.entries {
            let path = top.join(name);
            let is_right = match entry {
                TreeEntry::Folder => self.compare_folder(record, &path, name)?,
                TreeEntry::File(contents) => record.attempt("read", &path, || fs::read(&path))? == *contents,
                TreeEntry::Link(to) => record.attempt("readlink", &path, || fs::read_link(&path))? == *to,
            };
            if !is_right {
                record.wrong("compare", &path, "it is not what was copied".into());
                return None;
            }
        }
        Some(())
    }

    fn compare_folder(&self, record: &Record, path: &Path, name: &Path) -> Option<bool> {
        let mut found = record.attempt("readdir", path, || names_in(path))?;
        let inside = self.entries.iter().filter(|(inner, _)| inner != Path::new("") && inner.parent() == Some(name));
        let mut expected: Vec<_> = inside.filter_map(|(inner, _)| Some(inner.file_name()?.to_owned())).collect();
        found.sort();
        expected.sort();
        Some(found == expected)
    }

    fn remove(&self, record: &Record, top: &Path) -> Option<()> {
        for (name, entry) in self.entries.iter().rev() {
            // The top's own name must not end in a slash.
            let path = if name == Path::new("") { top.to_owned() } else { top.join(name) };
            match entry {
                TreeEntry::Folder => record.attempt("rmdir", &path, || fs::remove_dir(&path))?,
                _ => record.attempt("remove", &path, || fs::remove_file(&path))?,
            }
        }
        Some(())
    }
}

fn write_file(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(contents)?;
    close(file)
}

pub(super) fn names_in(folder: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
}
