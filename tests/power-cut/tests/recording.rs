//! The recording sees what `std` does, and a power cut leaves what was synced.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
};

use chordfs_power_cut::{Random, Recording};

/// What is left of `name` after each of many power cuts.
fn left(recording: &Recording, name: &str) -> Vec<Option<Vec<u8>>> {
    let disk = recording.disk();
    let after = |seed| {
        let folder = tempfile::tempdir().unwrap();
        disk.power_cut(&mut Random::new(seed)).materialize(folder.path());
        fs::read(folder.path().join(name)).ok()
    };
    (0..200).map(after).collect()
}

#[test]
fn only_what_was_synced_is_sure_to_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let recording = Recording::start(folder.path());
    let path = folder.path().join("file");
    let mut file = File::create(&path).unwrap();
    file.write_all(&[1; 1000]).unwrap();
    file.sync_all().unwrap();
    let found = left(&recording, "file");
    assert!(found.contains(&None) && found.contains(&Some(vec![1; 1000])), "its name was not synced");
    File::open(folder.path()).unwrap().sync_all().unwrap();
    assert!(left(&recording, "file").iter().all(|found| *found == Some(vec![1; 1000])));

    file.write_all_at(&[2; 1000], 500).unwrap();
    let found: Vec<_> = left(&recording, "file").into_iter().flatten().collect();
    assert!(found.iter().all(|bytes| bytes[..500] == [1; 500]), "the synced part stays");
    assert!(found.iter().any(|bytes| bytes.len() == 1000) && found.iter().any(|bytes| bytes.len() == 1500));
    assert!(found.iter().any(|bytes| bytes[500..].contains(&1) && bytes[500..].contains(&2)), "sectors are torn");
    file.sync_data().unwrap();
    file.set_len(10).unwrap();
    assert!(left(&recording, "file").iter().flatten().any(|bytes| bytes.len() == 1500));

    fs::create_dir(folder.path().join("inner")).unwrap();
    fs::write(folder.path().join("inner/file"), "inside").unwrap();
    File::open(folder.path().join("inner/file")).unwrap().sync_all().unwrap();
    File::open(folder.path().join("inner")).unwrap().sync_all().unwrap();
    File::open(folder.path()).unwrap().sync_all().unwrap();
    fs::rename(folder.path().join("inner"), folder.path().join("moved")).unwrap();
    let (old, new) = (left(&recording, "inner/file"), left(&recording, "moved/file"));
    assert!(old.iter().zip(&new).all(|(old, new)| old.is_some() != new.is_some()), "a folder keeps its contents");
    assert!(old.iter().any(Option::is_some) && new.iter().any(Option::is_some));

    fs::rename(&path, folder.path().join("other")).unwrap();
    let (old, new) = (left(&recording, "file"), left(&recording, "other"));
    assert!(old.iter().zip(&new).all(|(old, new)| old.is_some() != new.is_some()), "a rename is atomic");
    assert!(old.iter().any(Option::is_some) && new.iter().any(Option::is_some));
    fs::remove_file(folder.path().join("other")).unwrap();
    File::open(folder.path()).unwrap().sync_all().unwrap();
    assert!(left(&recording, "file").iter().chain(&left(&recording, "other")).all(Option::is_none));
    drop(file);
}

#[test]
fn any_single_operation_can_fail_and_a_failed_sync_loses_bytes() {
    let work = |folder: &Path| -> std::io::Result<()> {
        fs::create_dir(folder.join("inside"))?;
        let mut file = OpenOptions::new().create(true).append(true).open(folder.join("inside/file"))?;
        file.write_all(b"bytes")?;
        file.sync_all()?;
        fs::rename(folder.join("inside/file"), folder.join("inside/new"))?;
        File::open(folder.join("inside"))?.sync_all()
    };
    for step in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let recording = Recording::start(folder.path());
        recording.fail(step, step + 1, 5);
        assert_eq!(work(folder.path()).unwrap_err().raw_os_error(), Some(5), "step {step}");
        assert_eq!(recording.attempts(), step + 1);
        if step == 3 {
            let file = File::open(folder.path().join("inside/file")).unwrap();
            file.sync_all().unwrap();
            File::open(folder.path().join("inside")).unwrap().sync_all().unwrap();
            File::open(folder.path()).unwrap().sync_all().unwrap();
            assert!(left(&recording, "inside/file").iter().all(|found| *found == Some(Vec::new())));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let recording = Recording::start(folder.path());
    work(folder.path()).unwrap();
    assert_eq!((recording.steps(), recording.attempts()), (6, 6));
}

#[test]
fn pages_that_a_failed_sync_left_in_the_cache_are_readable_until_they_are_evicted() {
    let folder = tempfile::tempdir().unwrap();
    let recording = Recording::start(folder.path());
    let path = folder.path().join("file");
    let file = File::create(&path).unwrap();
    file.write_all_at(&[1; 100], 0).unwrap();
    file.sync_all().unwrap();
    File::open(folder.path()).unwrap().sync_all().unwrap();
    file.write_all_at(&[2; 100], 50).unwrap();
    recording.fail(recording.attempts(), recording.attempts() + 1, 5);
    file.sync_all().unwrap_err();
    file.write_all_at(&[2; 30], 120).unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::read(&path).unwrap(), [vec![1; 50], vec![2; 100]].concat(), "the cache has all of it");
    let on_disk = [vec![1; 100], vec![0; 20], vec![2; 30]].concat();
    assert!(left(&recording, "file").iter().all(|found| *found == Some(on_disk.clone())), "the disk does not");
    recording.evict();
    assert_eq!(fs::read(&path).unwrap(), on_disk);
    assert!(left(&recording, "file").iter().all(|found| *found == Some(on_disk.clone())));
}
