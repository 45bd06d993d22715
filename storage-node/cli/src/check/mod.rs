//! `storage-node check`: is every chunk of every file where it should be, and nothing else?
//!
//! Three passes, all of which only read. The walk takes the namespace page by page and asks the holders of each batch
//! of chunks. What looks wrong is asked again, with the ring and the extents as they are then: files change meanwhile,
//! third copies are on their way, nodes come and go. Then every node lists what it stores; what is part of no file
//! is looked at again after the grace, against a second walk.
//!
//! Memory: a batch, a bounded number of suspects, and 16 bytes for each run of chunks. `judge` decides, `peers` asks,
//! `orphans` is the third pass, `report` tells.

mod judge;
mod orphans;
mod peers;
mod report;

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use anyhow::{Result, bail};
use chordfs_types::{
    admin::State,
    chunk::{ChunkId, ChunkRef, FileName},
    fs_error::FsError,
    namespace::{Answer, Extent, FileContents, Ino, Query},
    ring_id::NodeRef,
};
use tokio::time::sleep;

pub use self::report::Report;
use self::{
    judge::{Circle, Copy, Referenced, Verdict, judge},
    peers::Peers,
};

/// Chunks asked for at a time.
const BATCH: usize = 32 << 10;
/// What looks wrong is kept until there is this much of it, and then asked again.
const SUSPECTS: usize = 64 << 10;
/// How often, and with which pause before: a write under way has its third copy, a stopped node has left the ring.
const ASKED_AGAIN: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// Any member: its ring address.
    pub node: SocketAddr,
    /// Have the holders read every record.
    pub verify: bool,
    /// What is stored and part of no file may be on its way into one for this long.
    pub grace: Duration,
}

/// An error means that it could not be checked.
pub async fn check(options: CheckOptions) -> Result<Report> {
    let mut check = Check::new(options).await?;
    let referenced = check.walk().await?;
    check.ask_suspects_again().await?;
    check.orphans(referenced).await?;
    Ok(check.report())
}

/// A chunk of a file, as its extents said.
#[derive(Clone, Debug)]
struct Expected {
    ino: Ino,
    chunk: ChunkRef,
}

struct Judged {
    verdict: Verdict,
    /// The holders without a sound copy.
    at_fault: Vec<NodeRef>,
}

struct Check {
    options: CheckOptions,
    peers: Peers,
    circle: Circle,
    batch: Vec<Expected>,
    suspects: Vec<Expected>,
    silent: Vec<NodeRef>,
    report: Report,
}

impl Check {
    async fn new(options: CheckOptions) -> Result<Self> {
        let report = Report { verified: options.verify, ..Report::default() };
        let mut check = Self {
            peers: Peers::new(options.node),
            options,
            circle: Circle::default(),
            batch: Vec::new(),
            suspects: Vec::new(),
            silent: Vec::new(),
            report,
        };
        check.look_at_ring().await?;
        Ok(check)
    }

    async fn look_at_ring(&mut self) -> Result<()> {
        let ring = self.peers.ring().await?;
        let storing = ring.nodes.iter().filter(|node| node.state != State::Foreign && node.arc.is_some());
        let node = |address: SocketAddr, id| NodeRef { ip: address.ip(), port: address.port(), id };
        let nodes: Vec<NodeRef> = storing.filter_map(|line| Some(node(line.address, line.id?))).collect();
        if nodes.is_empty() {
            bail!("no node of the ring of {} keeps chunks", self.options.node);
        }
        self.circle = Circle::new(nodes);
        Ok(())
    }

    /// All chunks of all files, each asked for once.
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
                    self.expect_all(file, extent).await?;
                }
            }
            next = rest;
        }
        self.ask_batch().await?;
        Ok(referenced.seal())
    }

    async fn contents(&mut self, (ino, first): (Ino, u32)) -> Result<(Vec<FileContents>, Option<(Ino, u32)>)> {
        match self.peers.query(&Query::Contents { ino, first }).await? {
            Ok(Answer::Contents { files, next }) => Ok((files, next)),
            other => bail!("asked for the contents of the files, got {other:?}"),
        }
    }

    async fn expect_all(&mut self, file: &FileContents, extent: &Extent) -> Result<()> {
        for step in 0..extent.count {
            self.report.chunks += 1;
            self.batch.push(expected(file.ino, &file.file, extent, extent.first + step));
            if self.batch.len() >= BATCH {
                self.ask_batch().await?;
            }
        }
        Ok(())
    }

    async fn ask_batch(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        let judged = self.judge_all(&batch).await;
        let wrong = batch.into_iter().zip(judged).filter(|(_, judged)| judged.verdict != Verdict::Sound);
        self.suspects.extend(wrong.map(|(expected, _)| expected));
        if self.suspects.len() >= SUSPECTS { self.ask_suspects_again().await } else { Ok(()) }
    }

    /// Reports what still looks wrong at the end; what is no part of a file any more is dropped.
    async fn ask_suspects_again(&mut self) -> Result<()> {
        let mut suspects = std::mem::take(&mut self.suspects);
        for round in 1..=ASKED_AGAIN {
            if suspects.is_empty() {
                return Ok(());
            }
            sleep(PAUSE).await;
            self.look_at_ring().await?;
            let judged = self.judge_all(&suspects).await;
            // The extents come last: what was deleted before the holders answered is known to be gone now.
            let current = self.still_current(&suspects).await?;
            let wrong = |judged: &Judged, current: bool| current && judged.verdict != Verdict::Sound;
            let all = suspects.into_iter().zip(judged).zip(current);
            let rest = all.filter(|((_, judged), current)| wrong(judged, *current)).map(|(pair, _)| pair);
            if round == ASKED_AGAIN {
                rest.for_each(|(expected, judged)| self.note(&expected, &judged));
                return Ok(());
            }
            suspects = rest.map(|(expected, _)| expected).collect();
        }
        Ok(())
    }

    fn note(&mut self, expected: &Expected, judged: &Judged) {
        if let Some(found) = self.report.of(judged.verdict) {
            found.add(&expected.chunk, judged.at_fault.iter().copied());
        }
    }

    /// For each, whether its file has it still; they come in the order of the walk.
    async fn still_current(&mut self, suspects: &[Expected]) -> Result<Vec<bool>> {
        let mut current = vec![false; suspects.len()];
        let (mut at, mut page): (usize, Option<(Ino, Vec<Extent>, bool)>) = (0, None);
        while let Some(suspect) = suspects.get(at) {
            let id = suspect.chunk.id;
            let known =
                page.as_ref().filter(|(ino, extents, more)| *ino == suspect.ino && covers(extents, *more, id.index));
            match known {
                Some((_, extents, _)) => {
                    current[at] = extents.iter().any(|extent| has(extent, id));
                    at += 1;
                }
                None => page = Some(self.extents(suspect.ino, id.index).await?),
            }
        }
        Ok(current)
    }

    async fn extents(&mut self, ino: Ino, from: u32) -> Result<(Ino, Vec<Extent>, bool)> {
        match self.peers.query(&Query::Extents { ino, from }).await? {
            Ok(Answer::Extents { extents, more }) => Ok((ino, extents, more)),
            Err(FsError::Stale { .. }) => Ok((ino, Vec::new(), false)),
            other => bail!("asked for the extents of inode {}, got {other:?}", ino.0),
        }
    }

    async fn judge_all(&mut self, batch: &[Expected]) -> Vec<Judged> {
        let holders: Vec<Vec<NodeRef>> =
            batch.iter().map(|expected| self.circle.holders(expected.chunk.key()).collect()).collect();
        let said = self.ask(batch, |at| holders[at].clone()).await;
        let lost = |at: usize| !said[at].contains(&Copy::Sound);
        let nodes = self.circle.nodes().to_vec();
        let others = |at: usize| match lost(at) {
            true => nodes.iter().filter(|node| !holders[at].contains(node)).copied().collect(),
            false => Vec::new(),
        };
        let elsewhere = self.ask(batch, others).await;
        let each = said.iter().zip(&elsewhere).zip(&holders);
        each.map(|((said, elsewhere), holders)| {
            let at_fault = holders.iter().zip(said).filter(|(_, copy)| **copy != Copy::Sound).map(|(node, _)| *node);
            Judged { verdict: judge(said, elsewhere), at_fault: at_fault.collect() }
        })
        .collect()
    }

    /// What the nodes that `whom` names for each say of it, in that order.
    async fn ask(&mut self, batch: &[Expected], whom: impl Fn(usize) -> Vec<NodeRef>) -> Vec<Vec<Copy>> {
        let mut groups: HashMap<NodeRef, Vec<(usize, usize)>> = HashMap::new();
        let mut said: Vec<Vec<Copy>> = Vec::with_capacity(batch.len());
        for at in 0..batch.len() {
            let nodes = whom(at);
            said.push(vec![Copy::Unknown; nodes.len()]);
            nodes.into_iter().enumerate().for_each(|(turn, node)| groups.entry(node).or_default().push((at, turn)));
        }
        let asked = groups.iter().map(|(node, group)| {
            (*node, group.iter().map(|&(at, _)| batch[at].chunk.clone()).collect::<Vec<ChunkRef>>())
        });
        for (node, copies) in self.peers.copies(asked.collect(), self.options.verify).await {
            if copies.first() == Some(&Copy::Unknown) {
                self.is_silent(node);
            }
            groups[&node].iter().zip(copies).for_each(|(&(at, turn), copy)| said[at][turn] = copy);
        }
        said
    }

    fn is_silent(&mut self, node: NodeRef) {
        if !self.silent.contains(&node) {
            self.silent.push(node);
        }
    }

    /// A node that was silent once and has left the ring since is no fault of the ring.
    fn report(mut self) -> Report {
        self.report.nodes = self.circle.nodes().len();
        let silent = self.silent.iter().filter(|node| self.circle.nodes().contains(node));
        self.report.unreachable_nodes = silent.map(|node| node.ring_address().to_string()).collect();
        self.report
    }
}

fn expected(ino: Ino, file: &FileName, extent: &Extent, index: u32) -> Expected {
    Expected { ino, chunk: ChunkRef { file: file.clone(), id: ChunkId { version: extent.version, index } } }
}

fn has(extent: &Extent, id: ChunkId) -> bool {
    extent.version == id.version && id.index.checked_sub(extent.first).is_some_and(|at| at < extent.count)
}

/// Whether a page of extents tells all about a chunk. It begins at or before any chunk that is asked for in order.
fn covers(extents: &[Extent], more: bool, index: u32) -> bool {
    !more || extents.last().is_some_and(|last| u64::from(index) < last.end())
}

#[cfg(test)]
mod tests {
    use chordfs_types::chunk::Version;

    use super::*;

    #[test]
    fn a_page_tells_about_its_chunks() {
        let extent = |first, count| Extent { first, count, version: Version(7) };
        let page = [extent(1, 5), extent(9, 2)];
        assert!(covers(&page, true, 7) && covers(&page, true, 10) && !covers(&page, true, 11));
        assert!(covers(&page, false, 11) && covers(&[], false, 1) && !covers(&[], true, 1));
        let id = |index, version| ChunkId { version: Version(version), index };
        assert!(has(&page[1], id(9, 7)) && has(&page[1], id(10, 7)));
        assert!(!has(&page[1], id(11, 7)) && !has(&page[1], id(8, 7)) && !has(&page[1], id(9, 8)));
    }
}
