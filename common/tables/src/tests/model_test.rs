//! Random operations on the tables and on the naive model, compared after each step.
//!
//! A failure prints its seed and the operation; `TABLES_SEED` runs that seed alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chordfs_types::namespace::{Answer, DirEntry, Extent, OpId, Query};

use super::{model::Model, *};

mod generate;
mod invariants;

use generate::Generator;

const SEEDS: u64 = 120;
const STEPS: u64 = 300;

#[test]
fn random_operations_agree_with_the_model() {
    let seeds = match std::env::var("TABLES_SEED") {
        Ok(seed) => vec![seed.parse().expect("TABLES_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    };
    let mut seen = BTreeMap::new();
    for seed in seeds {
        run(seed, &mut seen);
    }
    check_coverage(&seen);
}

/// How often each kind of change had each result.
type ResultCounts = BTreeMap<(String, String), u32>;

fn run(seed: u64, seen: &mut ResultCounts) {
    let mut pair = Pair { tables: Tables::new(), model: Model::new(), index: 0 };
    let mut generator = Generator::new(seed);
    for step in 0..STEPS {
        let op = generator.next(&pair.tables, &pair.model);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pair.step(&op)));
        match outcome {
            Ok(reply) => {
                let result = reply.as_ref().map_or_else(word, |_| "Ok".into());
                *seen.entry((word(&op.change), result)).or_default() += 1;
                generator.learn(&op, &reply);
            }
            Err(panic) => {
                eprintln!("TABLES_SEED={seed}, step {step}: {op:?}");
                std::panic::resume_unwind(panic);
            }
        }
    }
}

/// Checks that the generator reaches every result: otherwise the test would pass without testing it.
fn check_coverage(seen: &ResultCounts) {
    let wanted = [
        ("Make", "Ok Exists NotDirectory NoEntry Invalid"),
        ("MakeUnnamed", "Ok"),
        ("Publish", "Ok IsDirectory Invalid NoEntry"),
        ("Link", "Ok Exists NotPermitted NoEntry Stale"),
        ("Unlink", "Ok IsDirectory NoEntry"),
        ("Rmdir", "Ok NotDirectory NotEmpty NoEntry"),
        ("Rename", "Ok IntoItself NotEmpty NotDirectory IsDirectory Exists NoEntry"),
        ("SetAttr", "Ok IsDirectory Invalid Conflict Stale FileTooLarge"),
        ("Commit", "Ok Invalid Conflict Stale IsDirectory FileTooLarge OutOfOrder NoSession"),
        ("CommitWithData", "Ok Invalid Conflict Stale IsDirectory LogFull"),
        ("ForgetLogged", "Ok"),
        ("Hold", "Ok Stale"),
        ("Release", "Ok"),
        ("PurgeOrphans", "Ok"),
        ("ForgetDead", "Ok"),
        ("CollectOrphans", "Ok Invalid"),
        ("Discard", "Ok Invalid"),
        ("FoundRoot", "Ok"),
        ("HoldOrphans", "Ok"),
        ("OpenSession", "Ok"),
        ("CloseSession", "Ok NoSession"),
        ("SuspendSession", "Ok NoSession"),
        ("ResumeSession", "Ok NoSession"),
        ("AllocateVersions", "Ok Invalid"),
        ("AllocateInos", "Ok Invalid"),
        ("MakeNumbered", "Ok Exists NotDirectory NoEntry Invalid"),
    ];
    let reached = |change: &str, result: &str| seen.contains_key(&(change.into(), result.into()));
    let missing: Vec<_> = wanted
        .iter()
        .flat_map(|(change, results)| results.split(' ').map(move |result| (change, result)))
        .filter(|(change, result)| !reached(change, result))
        .collect();
    assert!(missing.is_empty(), "never reached: {missing:?} in {seen:#?}");
}

/// The name of a value's variant: the first word of its debug text.
fn word(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().into()
}

struct Pair {
    tables: Tables,
    model: Model,
    index: u64,
}

impl Pair {
    fn step(&mut self, op: &NamespaceOp) -> Result<Reply, FsError> {
        let before = self.tables.clone();
        // The leader's clock agrees with no other clock.
        let logged = Time { secs: op.now.secs + self.index as i64 % 5 - 2, nanos: 0 };
        if let Change::ForgetDead { ids } = &op.change
            && before.clone().apply(self.index + 1, logged, op).reply.is_ok()
            && op.origin.is_none()
        {
            let runs = ids.iter().filter_map(|id| before.dead.get(id));
            runs.for_each(|dead| self.model.forget(&dead.run));
        }
        self.index += 1;
        let applied = self.tables.apply(self.index, logged, op);
        if applied.reply == Err(FsError::LogFull) && !applied.repeated {
            invariants::check_full(&before, &op.change);
            assert_eq!(without_replies(&self.tables), without_replies(&before), "a refused change changed something");
            self.model.remember(op, &applied.reply);
            return applied.reply;
        }
        let expected = self.model.apply(self.index, op);
        // Chunks of a removed file that is not taken apart yet make the tables refuse the whole run; the model knows
        // only the chunks, and may name a later one.
        let conflict = |reply: &Result<Reply, FsError>| matches!(reply, Err(FsError::Conflict { .. }));
        if !(conflict(&applied.reply) && conflict(&expected)) {
            assert_eq!(without_change(&applied.reply), without_change(&expected), "the reply differs");
        }
        assert_eq!(applied.origin, op.origin.map(|id| id.session));
        if applied.reply.is_err() {
            assert_eq!(without_replies(&self.tables), without_replies(&before), "a refused change changed something");
            assert_eq!(applied.feed, []);
        }
        invariants::check_affected(&before, &op.change, &applied.feed);
        self.compare();
        invariants::check(&self.tables);
        invariants::check_feed(&before, &self.tables, &applied.feed);
        self.replay(op, &applied.reply);
        self.round_trip();
        applied.reply
    }

    fn replay(&mut self, op: &NamespaceOp, reply: &Result<Reply, FsError>) {
        // An operation that closed its own session finds no session the second time.
        let again = op.origin.is_some_and(|id| self.model.sessions().contains(&id.session));
        if !again {
            return;
        }
        let before = self.tables.clone();
        let applied = self.tables.apply(self.index + 1, Time { secs: 1_000_000, nanos: 0 }, op);
        assert_eq!((&applied.reply, applied.feed), (reply, Vec::new()), "the reply to the replayed operation differs");
        assert_eq!(self.tables, before, "the replayed operation changed something");
    }

    fn round_trip(&self) {
        if self.index.is_multiple_of(16) {
            let bytes = postcard::to_stdvec(&self.tables).unwrap();
            assert_eq!(postcard::from_bytes::<Tables>(&bytes).unwrap(), self.tables);
        }
    }

    fn compare(&self) {
        for version in (0..self.tables.next.version + 2).map(Version) {
            assert_eq!(self.tables.is_retired(version), self.model.is_retired(version), "{version:?} is retired");
        }
        for ino in (0..self.tables.next.ino + 1).map(Ino) {
            match self.model.nodes.get(&ino) {
                None => assert_eq!(self.tables.query(&Query::GetAttr { ino }), Err(FsError::Stale { ino })),
                Some(_) => self.compare_inode(ino),
            }
        }
        let dead: HashMap<_, _> = self.dead_chunks().into_iter().collect();
        assert_eq!(dead.len(), self.dead_chunks().len(), "a chunk died twice");
        assert_eq!(dead, self.model.dead);
        if self.index.is_multiple_of(8) {
            self.compare_unreferenced();
        }
    }

    /// Compares chunk by chunk, for versions that were never allocated, too.
    fn compare_unreferenced(&self) {
        let (last, next) = (32, self.tables.next.version);
        let versions: BTreeSet<u64> = (0..next.min(100)).chain(next.saturating_sub(1)..next + 2).collect();
        let run = |version: &u64| Extent { first: 1, count: last, version: Version(*version) };
        let runs: Vec<Extent> = versions.iter().map(run).collect();
        let Ok(Answer::Unreferenced { pieces, next: None }) = self.tables.query(&Query::Unreferenced { runs }) else {
            panic!("it takes more than one answer")
        };
        let free: BTreeSet<(u32, Version)> = pieces.iter().flat_map(chunks_of).collect();
        assert_eq!(
            free.len(),
            pieces.iter().map(|piece| piece.count as usize).sum::<usize>(),
            "a chunk is listed twice"
        );
        let all = versions.iter().flat_map(|version| (1..=last).map(move |index| (index, Version(*version))));
        let current = self.model.current();
        let expected = |chunk: &(u32, Version)| (1..next).contains(&chunk.1.0) && !current.contains(chunk);
        assert_eq!(free, all.filter(expected).collect());
    }

    fn compare_inode(&self, ino: Ino) {
        let node = &self.model.nodes[&ino];
        let Ok(Answer::Open { mut attr, extents, more: false }) = self.tables.query(&Query::Open { ino }) else {
            panic!("{ino:?} does not open")
        };
        attr.change = 0;
        assert_eq!(attr, self.model.attr(ino));
        let chunks: BTreeMap<u32, Version> = extents.iter().flat_map(chunks_of).collect();
        assert_eq!(chunks, node.chunks, "contents of {ino:?}");
        match attr.kind {
            FileKind::Directory => self.compare_directory(ino),
            FileKind::Symlink => {
                assert_eq!(self.tables.query(&Query::ReadLink { ino }), Ok(Answer::Target(node.target.clone())));
            }
            _ => {}
        }
    }

    fn compare_directory(&self, ino: Ino) {
        let Ok(Answer::Entries { parent, entries, more: false }) =
            self.tables.query(&Query::ReadDir { ino, after: None })
        else {
            panic!("{ino:?} does not list")
        };
        assert_eq!(parent, self.model.parent(ino).map_or(Ino::ROOT, |(parent, _)| parent));
        let node = &self.model.nodes[&ino];
        let found: Vec<(EntryName, Ino)> = entries.iter().map(|entry| (entry.name.clone(), entry.attr.ino)).collect();
        assert_eq!(found, node.children.clone().into_iter().collect::<Vec<_>>(), "entries of {ino:?}");
        for DirEntry { name, attr } in entries {
            let found = self.tables.query(&Query::Lookup { parent: ino, name });
            assert_eq!(found, Ok(Answer::Attr(attr)));
        }
    }

    fn dead_chunks(&self) -> Vec<((Version, u32), FileName)> {
        let all = Query::Dead { before: u64::MAX, limit: u32::MAX };
        let Ok(Answer::Dead(dead)) = self.tables.query(&all) else { panic!("the dead list does not list") };
        let chunks = dead.iter().flat_map(|(_, run)| {
            (run.first..=run.first + (run.count - 1)).map(|index| ((run.version, index), run.file.clone()))
        });
        let detached = self.tables.detached.iter().flat_map(|((_, place, first), contents)| {
            let extents = self.tables.extents_at(*place, (*first, contents.last));
            let chunks = extents.flat_map(|extent| chunks_of(&extent).collect::<Vec<_>>());
            chunks.map(|(index, version)| ((version, index), contents.file.clone()))
        });
        chunks.chain(detached).collect()
    }
}

fn chunks_of(extent: &Extent) -> impl Iterator<Item = (u32, Version)> + use<> {
    let extent = *extent;
    // A malformed run may end beyond the last index: a repeated operation has another content than the one answered.
    (0..extent.count).map_while(move |step| Some((extent.first.checked_add(step)?, extent.version)))
}

/// Removes the change counter and the texts of refusals, which the model does not have.
fn without_change(reply: &Result<Reply, FsError>) -> Result<Reply, FsError> {
    let mut reply = reply.clone();
    match &mut reply {
        Ok(Reply::Entry { attr, .. } | Reply::Attr(attr) | Reply::Removed { attr: Some(attr) }) => attr.change = 0,
        Err(FsError::Invalid { reason } | FsError::NotPermitted { reason }) => reason.clear(),
        _ => {}
    }
    reply
}

/// Removes the sessions' replies: a refused operation may change only those.
fn without_replies(tables: &Tables) -> Tables {
    let mut tables = tables.clone();
    let ids: Vec<SessionId> = tables.sessions.keys().copied().collect();
    for id in ids {
        tables.session_mut(id).unwrap().forget_replies();
    }
    tables
}
