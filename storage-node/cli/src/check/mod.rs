//! `storage-node check`: checks that every chunk of every file is on its holders, and looks for other chunks.
//!
//! There are three passes, and all of them only read. The walk reads the namespace page by page and asks the holders of
//! each batch of chunks. Suspect chunks are looked up again, with the ring and the extents of that moment: meanwhile
//! files change, third copies are made, nodes join and leave. Then every node lists what it stores; chunks that belong
//! to no file are checked again after the grace, against a second walk.
//!
//! Memory: a batch, a bounded number of suspects, and 16 bytes for each run of chunks. `judge` decides, `peers` sends
//! the requests, `orphans` is the third pass, `report` prints.

mod judge;
mod orphans;
mod peers;
mod report;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, bail};
use chordfs_types::{
    admin::{HealthCode, HealthReason, RingNodeState},
    chunk::{ChunkId, ChunkRef, FileName},
    fs_error::FsError,
    namespace::{Answer, Extent, FileContents, Ino, LoggedChunk, Query},
    ring_id::{NodeAddress, NodeRef},
};
use clap::Args;
use tokio::time::sleep;

pub use self::report::CheckReport;
use self::{
    judge::{ChunkVerdict, CopyFinding, HolderMap, Referenced, judge},
    peers::CheckPeers,
};
use crate::{
    node_arg::{NodeArg, connector},
    output::{complain, runtime, write_out},
    progress::{self, ProgressBar},
};

/// Chunks looked up at a time.
const BATCH: usize = 32 << 10;
/// The number of collected suspects at which they are looked up again.
const MAX_SUSPECTS: usize = 64 << 10;
/// How often suspects are looked up again, each time after this pause: after that a write under way has its third copy,
/// and a stopped node has left the ring.
const RECHECKS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// Chunks that the namespace is asked about at a time.
const LOGGED_PAGE: usize = 1024;
/// The exit code if the check could not be carried out.
const NOT_CHECKED: u8 = 2;

#[derive(Args)]
pub struct CheckArgs {
    #[command(flatten)]
    node: NodeArg,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Read every copy and check it against its checksum: takes as long as reading all stored data
    #[arg(long)]
    verify: bool,
    /// A stored chunk that belongs to no file counts as an orphan after this time; before, its write may be under way
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
}

#[derive(Clone, Debug)]
struct CheckOptions {
    /// Any member of the ring.
    node: NodeAddress,
    /// True if the holders read every record.
    verify: bool,
    /// How long a write may be under way: a stored chunk that belongs to no file for longer is an orphan.
    grace: Duration,
}

/// Runs the check. Its exit codes let a cron job distinguish a failed check from a faulty ring.
pub fn run(args: CheckArgs) -> ExitCode {
    let options =
        CheckOptions { node: args.node.address(), verify: args.verify, grace: Duration::from_secs(args.grace) };
    let done = || -> Result<u8> {
        let report = runtime(None)?.block_on(check(options))?;
        write_out(&if args.json { serde_json::to_string(&report)? + "\n" } else { report.for_people() })?;
        Ok(report.exit_code())
    };
    ExitCode::from(done().unwrap_or_else(|error| {
        complain(&format!("storage-node: not checked: {error:#}"));
        NOT_CHECKED
    }))
}

/// Errors: the check could not be carried out.
async fn check(options: CheckOptions) -> Result<CheckReport> {
    let bar = if options.verify { progress::of_copies("check") } else { ProgressBar::hidden() };
    let mut check = RingCheck::new(options, bar.clone()).await?;
    let referenced = check.walk().await?;
    check.recheck_suspects().await?;
    bar.finish_and_clear();
    check.orphans(referenced).await?;
    check.read_ring().await?;
    Ok(check.report())
}

/// A chunk that belongs to a file by the file's extents.
#[derive(Clone, Debug)]
struct ExpectedChunk {
    ino: Ino,
    chunk: ChunkRef,
}

struct JudgedChunk {
    verdict: ChunkVerdict,
    /// The holders without a sound copy.
    at_fault: Vec<NodeRef>,
}

struct RingCheck {
    options: CheckOptions,
    peers: CheckPeers,
    holder_map: HolderMap,
    batch: Vec<ExpectedChunk>,
    suspects: Vec<ExpectedChunk>,
    unresponsive: Vec<NodeRef>,
    report: CheckReport,
}

impl RingCheck {
    async fn new(options: CheckOptions, bar: ProgressBar) -> Result<Self> {
        let report = CheckReport { verified: options.verify, ..CheckReport::default() };
        let mut check = Self {
            peers: CheckPeers::new(options.node, connector(options.node).await?, bar),
            options,
            holder_map: HolderMap::default(),
            batch: Vec::new(),
            suspects: Vec::new(),
            unresponsive: Vec::new(),
            report,
        };
        check.read_ring().await?;
        let hopeless = |reason: &&HealthReason| matches!(reason.code, HealthCode::NoMajority | HealthCode::NoNamespace);
        match check.report.health.reasons.iter().find(hopeless) {
            Some(reason) => bail!("{}", reason.text),
            None => Ok(check),
        }
    }

    async fn read_ring(&mut self) -> Result<()> {
        let ring = self.peers.ring().await?;
        // Chunks with too few copies are counted one by one here.
        self.report.health = ring.health.clone().without(HealthCode::UnderReplicated);
        let storing = ring.nodes.iter().filter(|node| node.state != RingNodeState::Foreign && node.arc.is_some());
        let node = |address: SocketAddr, id| NodeRef { ip: address.ip(), port: address.port(), id };
        let nodes: Vec<NodeRef> = storing.filter_map(|line| Some(node(line.address, line.id?))).collect();
        if nodes.is_empty() {
            bail!("no node of the ring of {} keeps chunks", self.options.node);
        }
        self.holder_map = HolderMap::new(nodes);
        Ok(())
    }

    /// Looks up all chunks of all files once.
    async fn walk(&mut self) -> Result<Referenced> {
        let mut referenced = Referenced::default();
        let mut next = Some((Ino(0), 0));
        let mut last = None;
        while let Some(from) = next {
            let (files, rest) = self.contents(from).await?;
            for file in &files {
                self.report.files += u64::from(last.replace(file.ino) != Some(file.ino));
                for extent in &file.extents {
                    referenced.add(extent);
                    self.expect_extent(file, extent).await?;
                }
            }
            next = rest;
        }
        self.check_batch().await?;
        Ok(referenced.seal())
    }

    async fn contents(&mut self, (ino, first): (Ino, u32)) -> Result<(Vec<FileContents>, Option<(Ino, u32)>)> {
        match self.peers.query(&Query::Contents { ino, first }).await? {
            Ok(Answer::Contents { files, next }) => Ok((files, next)),
            other => bail!("expected the contents of the files, got {other:?}"),
        }
    }

    async fn expect_extent(&mut self, file: &FileContents, extent: &Extent) -> Result<()> {
        for step in 0..extent.count {
            self.report.chunks += 1;
            self.batch.push(expected(file.ino, &file.file, extent, extent.first + step));
            if self.batch.len() >= BATCH {
                self.check_batch().await?;
            }
        }
        Ok(())
    }

    async fn check_batch(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let judged = self.judge_all(&batch).await;
        let wrong = batch.into_iter().zip(judged).filter(|(_, judged)| judged.verdict != ChunkVerdict::Sound);
        self.suspects.extend(wrong.map(|(expected, _)| expected));
        if self.suspects.len() >= MAX_SUSPECTS { self.recheck_suspects().await } else { Ok(()) }
    }

    /// Reports the chunks that are still wrong after the last look. Chunks that no longer belong to a file are dropped.
    async fn recheck_suspects(&mut self) -> Result<()> {
        let mut suspects = std::mem::take(&mut self.suspects);
        for round in 1..=RECHECKS {
            if suspects.is_empty() {
                return Ok(());
            }
            sleep(PAUSE).await;
            self.read_ring().await?;
            let judged = self.judge_all(&suspects).await;
            // The extents come last: a chunk that was deleted before the holders answered is no longer in them.
            let current = self.still_current(&suspects).await?;
            let logged = self.logged(&suspects).await?;
            let wrong = |expected: &ExpectedChunk, judged: &JudgedChunk| match judged.verdict {
                ChunkVerdict::Sound => false,
                ChunkVerdict::Damaged => true,
                _ => !logged.contains(&expected.chunk.id),
            };
            let all = suspects.into_iter().zip(judged).zip(current);
            let current = all.filter(|(_, current)| *current).map(|(pair, _)| pair);
            let rest = current.filter(|(expected, judged)| wrong(expected, judged));
            if round == RECHECKS {
                self.report.logged += logged.len() as u64;
                rest.for_each(|(expected, judged)| self.note(&expected, &judged));
                return Ok(());
            }
            suspects = rest.map(|(expected, _)| expected).collect();
        }
        Ok(())
    }

    fn note(&mut self, expected: &ExpectedChunk, judged: &JudgedChunk) {
        if let Some(found) = self.report.findings(judged.verdict) {
            found.add(&expected.chunk, judged.at_fault.iter().copied());
        }
    }

    /// Those of the suspects whose data the log keeps: their holders get them soon.
    async fn logged(&mut self, suspects: &[ExpectedChunk]) -> Result<HashSet<ChunkId>> {
        let mut logged = HashSet::new();
        let mut rest = suspects.iter().map(|suspect| suspect.chunk.id).peekable();
        while rest.peek().is_some() {
            let mut page: Vec<ChunkId> = rest.by_ref().take(LOGGED_PAGE).collect();
            while !page.is_empty() {
                let kept = match self.peers.query(&Query::LoggedChunks { ids: page.clone() }).await? {
                    Ok(Answer::LoggedChunks(kept)) => kept,
                    other => bail!("expected chunks that the log keeps, got {other:?}"),
                };
                LoggedChunk::drop_answered(&mut page, &kept);
                logged.extend(kept.into_iter().map(|kept| kept.id));
            }
        }
        Ok(logged)
    }

    /// For each suspect, in the order of the walk, whether it still belongs to its file.
    async fn still_current(&mut self, suspects: &[ExpectedChunk]) -> Result<Vec<bool>> {
        let mut current = vec![false; suspects.len()];
        let (mut at, mut page): (usize, Option<(Ino, Vec<Extent>, bool)>) = (0, None);
        while let Some(suspect) = suspects.get(at) {
            let id = suspect.chunk.id;
            let known =
                page.as_ref().filter(|(ino, extents, more)| *ino == suspect.ino && covers(extents, *more, id.index));
            match known {
                Some((_, extents, _)) => {
                    // A file that shares the chunk has it under another version.
                    current[at] = extents.iter().any(|extent| has(extent, id)) || self.is_referenced(id).await?;
                    at += 1;
                }
                None => page = Some(self.extents(suspect.ino, id.index).await?),
            }
        }
        Ok(current)
    }

    async fn is_referenced(&mut self, ChunkId { version, index }: ChunkId) -> Result<bool> {
        let runs = vec![Extent { first: index, count: 1, version }];
        match self.peers.query(&Query::Unreferenced { runs }).await? {
            Ok(Answer::Unreferenced { pieces, .. }) => Ok(pieces.is_empty()),
            other => bail!("expected whether version {} is referenced, got {other:?}", version.0),
        }
    }

    async fn extents(&mut self, ino: Ino, from: u32) -> Result<(Ino, Vec<Extent>, bool)> {
        match self.peers.query(&Query::Extents { ino, from }).await? {
            Ok(Answer::Extents { extents, more }) => Ok((ino, extents, more)),
            Err(FsError::Stale { .. }) => Ok((ino, Vec::new(), false)),
            other => bail!("expected the extents of inode {}, got {other:?}", ino.0),
        }
    }

    async fn judge_all(&mut self, batch: &[ExpectedChunk]) -> Vec<JudgedChunk> {
        let holders: Vec<Vec<NodeRef>> =
            batch.iter().map(|expected| self.holder_map.holders(expected.chunk.key()).collect()).collect();
        let held = self.look_up(batch, |at| holders[at].clone()).await;
        let lacks_sound_copy = |at: usize| !held[at].contains(&CopyFinding::Sound);
        let nodes = self.holder_map.nodes().to_vec();
        let others = |at: usize| {
            if lacks_sound_copy(at) {
                nodes.iter().filter(|node| !holders[at].contains(node)).copied().collect()
            } else {
                Vec::new()
            }
        };
        let elsewhere = self.look_up(batch, others).await;
        let each = held.iter().zip(&elsewhere).zip(&holders);
        each.map(|((held, elsewhere), holders)| {
            let at_fault =
                holders.iter().zip(held).filter(|(_, copy)| **copy != CopyFinding::Sound).map(|(node, _)| *node);
            JudgedChunk { verdict: judge(held, elsewhere), at_fault: at_fault.collect() }
        })
        .collect()
    }

    /// For each chunk, the copies on the nodes that `nodes_of` returns, in that order.
    async fn look_up(
        &mut self,
        batch: &[ExpectedChunk],
        nodes_of: impl Fn(usize) -> Vec<NodeRef>,
    ) -> Vec<Vec<CopyFinding>> {
        let mut groups: HashMap<NodeRef, Vec<(usize, usize)>> = HashMap::new();
        let mut states: Vec<Vec<CopyFinding>> = Vec::with_capacity(batch.len());
        for at in 0..batch.len() {
            let nodes = nodes_of(at);
            states.push(vec![CopyFinding::Unknown; nodes.len()]);
            nodes.into_iter().enumerate().for_each(|(turn, node)| groups.entry(node).or_default().push((at, turn)));
        }
        let asked = groups.iter().map(|(node, group)| {
            (*node, group.iter().map(|&(at, _)| batch[at].chunk.clone()).collect::<Vec<ChunkRef>>())
        });
        for (node, copies) in self.peers.copies(asked.collect(), self.options.verify).await {
            if copies.first() == Some(&CopyFinding::Unknown) {
                self.add_unresponsive(node);
            }
            groups[&node].iter().zip(copies).for_each(|(&(at, turn), copy)| states[at][turn] = copy);
        }
        states
    }

    fn add_unresponsive(&mut self, node: NodeRef) {
        if !self.unresponsive.contains(&node) {
            self.unresponsive.push(node);
        }
    }

    /// Completes the report, without the unresponsive nodes that have left the ring since.
    fn report(mut self) -> CheckReport {
        self.report.nodes = self.holder_map.nodes().len();
        let unresponsive = self.unresponsive.iter().filter(|node| self.holder_map.nodes().contains(node));
        self.report.unreachable_nodes = unresponsive.map(|node| node.ring_address().to_string()).collect();
        self.report
    }
}

fn expected(ino: Ino, file: &FileName, extent: &Extent, index: u32) -> ExpectedChunk {
    ExpectedChunk { ino, chunk: ChunkRef { file: file.clone(), id: ChunkId { version: extent.version, index } } }
}

fn has(extent: &Extent, id: ChunkId) -> bool {
    extent.version == id.version && id.index.checked_sub(extent.first).is_some_and(|at| at < extent.count)
}

/// Whether a page of extents decides about a chunk. The page begins at or before any chunk that is looked up in order.
fn covers(extents: &[Extent], more: bool, index: u32) -> bool {
    !more || extents.last().is_some_and(|last| u64::from(index) < last.end())
}

#[cfg(test)]
mod tests {
    use chordfs_types::chunk::Version;

    use super::*;

    #[test]
    fn a_page_decides_about_its_chunks() {
        let extent = |first, count| Extent { first, count, version: Version(7) };
        let page = [extent(1, 5), extent(9, 2)];
        assert!(covers(&page, true, 7) && covers(&page, true, 10) && !covers(&page, true, 11));
        assert!(covers(&page, false, 11) && covers(&[], false, 1) && !covers(&[], true, 1));
        let id = |index, version| ChunkId { version: Version(version), index };
        assert!(has(&page[1], id(9, 7)) && has(&page[1], id(10, 7)));
        assert!(!has(&page[1], id(11, 7)) && !has(&page[1], id(8, 7)) && !has(&page[1], id(9, 8)));
    }
}
