//! Invariants of the tables after any sequence of operations.

use chordfs_types::chunk::{ChunkId, ChunkRun};

use super::*;
use crate::extents::ExtentMath;

pub(super) fn check(tables: &Tables) {
    links(tables);
    parents(tables);
    orphans(tables);
    extents(tables);
    logged_chunks(tables);
    tree(tables);
}

/// The log has nothing to store that was replaced or removed, unless it waits to be taken apart.
fn logged_chunks(tables: &Tables) {
    let (mut count, mut bytes) = (0, 0);
    for (id, file, data) in tables.chunks_to_place(u64::MAX) {
        let run = ChunkRun { file: file.clone(), first: id.index, count: 1, version: id.version };
        let is_dead = tables.dead_under(&Extent::from(&run)).next().is_some();
        assert!(!is_dead && (tables.is_current(&run) || !tables.detached.is_empty()), "{id:?} is kept in vain");
        (count, bytes) = (count + 1, bytes + data.len() as u64 + 256);
    }
    assert_eq!(tables.logged_totals(), (count, bytes));
    for ChunkId { version, index } in tables.logged_chunks.replaced_ids() {
        let run = Extent { first: index, count: 1, version };
        assert!(tables.dead_under(&run).next().is_some(), "a reader's copy of chunk {index} of {version:?} leaks");
    }
}

/// A commit was refused because the log is full of data.
pub(super) fn check_full(tables: &Tables, change: &Change) {
    let Change::CommitWithData { chunks, .. } = change else { panic!("{change:?} has no data") };
    let more: u64 = chunks.iter().map(|chunk| chunk.data.len() as u64 + 256).sum();
    let (_, bytes) = tables.logged_totals();
    assert!(bytes + more > crate::logged_chunks::MAX_LOGGED_BYTES, "{bytes} bytes are kept, and {more} do not fit");
}

fn links(tables: &Tables) {
    let mut names: HashMap<Ino, u32> = HashMap::new();
    for (place, ino) in tables.entries.iter() {
        assert!(tables.inodes.contains_key(ino), "{place:?} names nothing");
        assert!(tables.directory(place.parent).is_ok(), "{place:?} is in no directory");
        *names.entry(*ino).or_default() += 1;
    }
    for (ino, inode) in tables.inodes.iter() {
        let count = names.get(ino).copied().unwrap_or(0);
        if inode.is_directory() {
            assert_eq!(count, u32::from(*ino != Ino::ROOT), "names of the directory {ino:?}")
        } else {
            assert_eq!(count, inode.attr.nlink, "links of {ino:?}")
        }
        assert_eq!(tables.orphans.contains_key(ino), inode.attr.nlink == 0, "{ino:?} is an orphan or has a name");
    }
}

/// What is kept of the parents of inodes is what the names say.
fn parents(tables: &Tables) {
    let mut names: BTreeMap<Ino, BTreeMap<Ino, u32>> = BTreeMap::new();
    for (place, ino) in tables.entries.iter() {
        *names.entry(*ino).or_default().entry(place.parent).or_default() += 1;
    }
    for (ino, inode) in tables.inodes.iter().filter(|(_, inode)| inode.attr.nlink > 0 && !inode.is_directory()) {
        let counted = tables.name_counts.iter().filter(|((counted, _), _)| counted == ino);
        let counted: BTreeMap<Ino, u32> = counted.map(|((_, parent), count)| (*parent, *count)).collect();
        let single = match &inode.body {
            Body::Plain { parent } | Body::Symlink { parent, .. } => *parent,
            Body::Directory { .. } => None,
        };
        let kept = match single {
            Some(parent) => BTreeMap::from([(parent, 1)]),
            None => counted.clone(),
        };
        assert!(single.is_none() || counted.is_empty(), "the parents of {ino:?} are kept twice");
        assert_eq!(names.get(ino), Some(&kept), "parents of {ino:?}");
    }
    let is_named = |ino: &Ino| tables.inodes.get(ino).is_some_and(|inode| inode.attr.nlink > 1);
    assert!(tables.name_counts.keys().all(|(ino, _)| is_named(ino)), "counts leak: {:?}", tables.name_counts);
    assert!(tables.session_owners.keys().all(|session| tables.has_session(*session)), "an owner leaks");
}

fn orphans(tables: &Tables) {
    let free: BTreeMap<_, _> = tables.orphans.iter().filter(|(_, orphan)| orphan.holders.is_empty()).collect();
    let unheld: BTreeSet<(u64, Ino)> = tables.unheld.keys().copied().collect();
    assert_eq!(unheld, free.iter().map(|(ino, orphan)| (orphan.since, **ino)).collect());
    let held = |(ino, orphan): (&Ino, &OrphanInode)| {
        let ino = *ino;
        orphan.holders.clone().into_iter().map(move |session| (session, ino))
    };
    let by_orphan: Vec<(SessionId, Ino)> = tables.orphans.iter().flat_map(held).collect();
    let by_session: BTreeSet<(SessionId, Ino)> = tables
        .sessions
        .iter()
        .flat_map(|(id, session)| session.holds.keys().map(|ino| (*id, *ino)).collect::<Vec<_>>())
        .chain(tables.ended.iter().flat_map(|(id, holds)| holds.0.keys().map(|ino| (*id, *ino)).collect::<Vec<_>>()))
        .collect();
    assert_eq!(by_orphan.len(), by_session.len(), "each hold is recorded twice, at the orphan and at the session");
    assert_eq!(by_orphan.into_iter().collect::<BTreeSet<_>>(), by_session);
}

fn extents(tables: &Tables) {
    let mut references: BTreeMap<Version, (Ino, u32)> = BTreeMap::new();
    let mut bytes = 0;
    let mut current = BTreeSet::new();
    let mut count_extents = 0;
    for (ino, _) in tables.inodes.iter() {
        let (ino, found): (Ino, Vec<Extent>) = (*ino, tables.extents_from(*ino, 1).collect());
        count_extents += found.len();
        if found.is_empty() {
            continue;
        }
        let attr = tables.file(ino).expect("only files have extents");
        for extent in &found {
            let (user, count) = references.entry(extent.version).or_insert((ino, 0));
            assert_eq!(*user, ino, "{extent:?} is in two files");
            *count += 1;
            bytes += u64::from(extent.count) * u64::from(attr.chunk_bytes);
            assert!(chunks_of(extent).all(|chunk| current.insert(chunk)), "{extent:?} is current twice");
        }
        for pair in found.windows(2) {
            let gap = pair[1].first.checked_sub(pair[0].last()).expect("extents ascend");
            let apart = pair[0].version != pair[1].version || tables.places.contains_key(&(ino, pair[1].first));
            assert!(gap > 1 || gap == 1 && apart, "{pair:?} are one extent");
        }
        let last = found.last().unwrap().last();
        assert!(u64::from(last - 1) * u64::from(attr.chunk_bytes) < attr.size, "chunk {last} of {attr:?}");
    }
    let mut gone = BTreeSet::new();
    for ((ino, place, first), contents) in tables.detached.iter() {
        for extent in tables.extents_at(*place, (*first, contents.last)) {
            let (user, count) = references.entry(extent.version).or_insert((*ino, 0));
            assert_eq!(user, ino, "{extent:?} was in two files");
            *count += 1;
            count_extents += 1;
            bytes += u64::from(extent.count) * u64::from(contents.chunk_bytes);
            assert!(chunks_of(&extent).all(|chunk| gone.insert(chunk) && !current.contains(&chunk)), "{extent:?}");
        }
    }
    assert_eq!(count_extents, tables.extents.len(), "every extent is a file's or detached");
    assert!(tables.places.keys().all(|(ino, _)| tables.inodes.contains_key(ino)));
    let kept = tables.versions.iter().map(|(version, used)| (*version, (used.ino, used.extents)));
    assert_eq!(references, kept.collect());
    let place = |(id, dead): (&u64, &DeadRun)| ((dead.run.version, dead.run.first), *id);
    let dead: BTreeMap<(Version, u32), u64> = tables.dead.iter().map(place).collect();
    assert_eq!(dead.len(), tables.dead.len(), "two dead runs begin with one chunk");
    assert_eq!(dead, tables.dead_versions.iter().map(|(at, id)| (*at, *id)).collect());
    assert_eq!(bytes, tables.stored_bytes);
    for dead in tables.dead.values() {
        let run = Extent { first: dead.run.first, count: dead.run.count, version: dead.run.version };
        assert!(
            chunks_of(&run).all(|chunk| !current.contains(&chunk) && !gone.contains(&chunk)),
            "{run:?} is dead and current"
        );
    }
}

fn tree(tables: &Tables) {
    for (ino, inode) in tables.inodes.iter().filter(|(_, inode)| inode.is_directory()) {
        if let Some((parent, name)) = inode.up() {
            assert_eq!(tables.entry(*parent, name).map(|inode| inode.attr.ino), Some(*ino), "`..` of {ino:?}");
        }
        assert_eq!(tables.upwards(*ino).last().map(|inode| inode.attr.ino), Some(Ino::ROOT));
    }
}

/// Checks that the feed reports everything that another session may have cached and that is now wrong.
pub(super) fn check_feed(before: &Tables, after: &Tables, feed: &[FeedEvent]) {
    let places: BTreeSet<&DentryKey> = before.entries.keys().chain(after.entries.keys()).collect();
    for DentryKey { parent, name } in
        places.into_iter().filter(|place| before.entries.get(*place) != after.entries.get(*place))
    {
        let event = FeedEvent::Entry { parent: *parent, name: name.clone() };
        assert!(feed.contains(&event), "{event:?} is missing in {feed:?}");
    }
    for (ino, old) in before.inodes.iter() {
        let new = after.inodes.get(ino);
        if new == Some(old) || (new.is_none() && before.orphans.contains_key(ino)) {
            continue;
        }
        let reports = |event: &FeedEvent| matches!(event, FeedEvent::Inode { ino: changed, .. } if changed == ino);
        assert_eq!(feed.iter().filter(|event| reports(event)).count(), 1, "{ino:?} in {feed:?}");
        assert!(new.is_none_or(|new| new.attr.change > old.attr.change), "the change counter of {ino:?} does not grow");
        let contents = new.is_some() && !before.extents_from(*ino, 1).eq(after.extents_from(*ino, 1));
        assert!(!contents || feed.contains(&FeedEvent::Inode { ino: *ino, contents: true }), "{ino:?} in {feed:?}");
        let orphaned = after.orphans.contains_key(ino) && !before.orphans.contains_key(ino);
        assert_eq!(orphaned, feed.contains(&FeedEvent::Orphaned { ino: *ino }), "{ino:?} in {feed:?}");
    }
}

/// Checks that what a change affects was foretold: all but what it creates.
pub(super) fn check_affected(before: &Tables, change: &Change, feed: &[FeedEvent]) {
    let affected: BTreeSet<Ino> = before.affected(change).into_iter().collect();
    assert_eq!(affected.len(), before.affected(change).len(), "an inode is listed twice");
    let changed = feed.iter().map(FeedEvent::ino).filter(|ino| before.inodes.contains_key(ino));
    let missing: BTreeSet<Ino> = changed.filter(|ino| !affected.contains(ino)).collect();
    assert!(missing.is_empty(), "{missing:?} is missing in {affected:?} of {change:?}");
}
