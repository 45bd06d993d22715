//! The findings of a check, for people and as JSON.

use std::fmt::Write;

use chordfs_types::{
    admin::Health,
    chunk::{ChunkName, ChunkRef},
    ring_id::NodeRef,
};
use serde::Serialize;

use super::judge::ChunkVerdict;
use crate::verdict::verdict;

/// The most chunks of one kind that are named; further ones are only counted.
const NAMED: usize = 1000;
/// The most named chunks of one kind in the text for people.
const SHOWN: usize = 20;

/// The JSON of `storage-node check --json`: fields are added, never renamed.
#[derive(Debug, Default, Serialize)]
pub struct CheckReport {
    pub files: u64,
    pub chunks: u64,
    /// True if the records were read, not only looked up.
    pub verified: bool,
    pub nodes: usize,
    /// Ring addresses of the nodes that left a request unanswered.
    pub unreachable_nodes: Vec<String>,
    /// No node has a sound copy.
    pub missing: ChunkFindings,
    /// One copy is damaged and another is sound.
    pub damaged: ChunkFindings,
    /// There are fewer sound copies than holders.
    pub under_replicated: ChunkFindings,
    /// No copy was found, and not all nodes answered.
    pub unreachable: ChunkFindings,
    /// Stored chunks that belonged to no file for at least the grace.
    pub orphaned: ChunkFindings,
    /// Copies that belong to no file and were not looked at again, because there were too many: `orphaned` counts the
    /// others.
    pub unexamined_copies: u64,
    /// The verdict on the ring itself: dead nodes and voters, disks.
    pub health: Health,
    /// Chunks whose holders do not have them yet, because they are still in the namespace's log, where they are
    /// durable.
    pub logged: u64,
    /// Copies on nodes that are not holders: repair removes them some time after the ring has changed.
    pub surplus_copies: u64,
}

#[derive(Debug, Default, Serialize)]
pub struct ChunkFindings {
    pub count: u64,
    /// The first of them.
    pub first: Vec<ChunkFinding>,
}

#[derive(Debug, Serialize)]
pub struct ChunkFinding {
    pub chunk: String,
    pub version: u64,
    /// Ring addresses of the holders whose copy is missing or damaged; of an orphan, those of the nodes that store it.
    pub nodes: Vec<String>,
}

impl ChunkFindings {
    pub fn add(&mut self, chunk: &ChunkRef, nodes: impl Iterator<Item = NodeRef>) {
        self.count += 1;
        if self.first.len() < NAMED {
            let name = ChunkName { file: chunk.file.clone(), index: chunk.id.index };
            let nodes = nodes.map(|node| node.ring_address().to_string()).collect();
            self.first.push(ChunkFinding { chunk: name.to_string(), version: chunk.id.version.0, nodes });
        }
    }
}

impl CheckReport {
    /// The list for chunks with this verdict; `None` for sound ones.
    pub fn findings(&mut self, verdict: ChunkVerdict) -> Option<&mut ChunkFindings> {
        match verdict {
            ChunkVerdict::Sound => None,
            ChunkVerdict::UnderReplicated => Some(&mut self.under_replicated),
            ChunkVerdict::Damaged => Some(&mut self.damaged),
            ChunkVerdict::Unreachable => Some(&mut self.unreachable),
            ChunkVerdict::Missing => Some(&mut self.missing),
        }
    }

    /// 0: nothing is wrong (orphans only take space); 1: something is wrong; 2: the ring is in the state ERROR, or the
    /// check was incomplete and found nothing.
    pub fn exit_code(&self) -> u8 {
        let found = self.missing.count + self.damaged.count + self.under_replicated.count;
        let chunks = match (found, self.unreachable.count as usize + self.unreachable_nodes.len()) {
            (0, 0) => 0,
            (0, _) => 2,
            _ => 1,
        };
        chunks.max(self.health.level.exit_code())
    }

    pub fn for_people(&self) -> String {
        let mut out = String::new();
        for (name, found) in self.kinds() {
            for chunk in found.first.iter().take(SHOWN) {
                let nodes = chunk.nodes.join(", ");
                writeln!(out, "{name}: {:?} version {} ({nodes})", chunk.chunk, chunk.version).expect(TEXT);
            }
            if found.count > SHOWN as u64 {
                writeln!(out, "{name}: {} more", found.count - SHOWN as u64).expect(TEXT);
            }
        }
        for node in &self.unreachable_nodes {
            writeln!(out, "no answer: {node}").expect(TEXT);
        }
        let read = if self.verified { "every copy read" } else { "copies looked up, not read; --verify reads them" };
        writeln!(out, "{} files, {} chunks on {} nodes; {read}", self.files, self.chunks, self.nodes).expect(TEXT);
        let counts: Vec<String> = self.kinds().map(|(name, found)| format!("{} {name}", found.count)).into();
        writeln!(out, "{}; {} surplus copies", counts.join(", "), self.surplus_copies).expect(TEXT);
        if self.logged > 0 {
            writeln!(out, "{} chunks are in the log of the namespace, and not yet on their holders", self.logged)
                .expect(TEXT);
        }
        if self.unexamined_copies > 0 {
            let (copies, orphans) = (self.unexamined_copies, self.orphaned.count);
            writeln!(
                out,
                "orphaned: {copies} more copies belong to no file; only {orphans} chunks were looked at twice"
            )
            .expect(TEXT);
        }
        out + &verdict(&self.health)
    }

    fn kinds(&self) -> [(&'static str, &ChunkFindings); 5] {
        [
            ("missing", &self.missing),
            ("damaged", &self.damaged),
            ("under-replicated", &self.under_replicated),
            ("unreachable", &self.unreachable),
            ("orphaned", &self.orphaned),
        ]
    }
}

const TEXT: &str = "a string takes text";

#[cfg(test)]
mod tests {
    use chordfs_types::{
        admin::HealthLevel,
        chunk::{ChunkId, FileName, Version},
    };

    use super::*;

    #[test]
    fn the_exit_code_tells_faults_from_an_incomplete_check() {
        let chunk = |index| ChunkRef {
            file: FileName::new("a\nb").expect("a name"),
            id: ChunkId { version: Version(7), index },
        };
        let mut report = CheckReport::default();
        assert_eq!(report.exit_code(), 0);
        (1..=25).for_each(|index| report.orphaned.add(&chunk(index), std::iter::empty()));
        assert_eq!(report.exit_code(), 0, "orphans take space and no more");
        report.health.level = HealthLevel::Warn;
        assert_eq!(report.exit_code(), 1, "a node of the ring is dead");
        report.health.level = HealthLevel::Ok;
        report.unreachable_nodes.push("10.0.0.1:5057".into());
        assert_eq!(report.exit_code(), 2);
        report.findings(ChunkVerdict::Damaged).expect("damaged chunks are listed").add(&chunk(1), std::iter::empty());
        assert_eq!(report.exit_code(), 1);
        report.health.level = HealthLevel::Error;
        assert_eq!(report.exit_code(), 2);
        (report.unexamined_copies, report.logged) = (12, 3);
        let text = report.for_people();
        assert!(text.contains("orphaned: 12 more copies belong to no file"), "{text}");
        assert!(
            text.contains("orphaned: 5 more") && text.contains("0 missing, 1 damaged, 0 under-replicated"),
            "{text}"
        );
        assert!(text.contains(r#"damaged: "a\nb_chunk_1" version 7"#), "{text}");
        assert!(text.contains("3 chunks are in the log"), "{text}");
    }
}
