//! What a check found, for people and as JSON.

use std::fmt::Write;

use chordfs_types::{
    chunk::{ChunkName, ChunkRef},
    ring_id::NodeRef,
};
use serde::Serialize;

use super::judge::Verdict;

/// Chunks of one kind that are named; the rest is only counted.
const NAMED: usize = 1000;
/// How many of them people are shown.
const SHOWN: usize = 20;

/// The JSON of `storage-node check --json`: fields are added, never renamed.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub files: u64,
    pub chunks: u64,
    /// Whether the records were read, not only looked up.
    pub verified: bool,
    pub nodes: usize,
    /// Ring addresses of nodes that did not answer some question.
    pub unreachable_nodes: Vec<String>,
    /// No node has a sound copy.
    pub missing: Found,
    /// A copy is damaged, another sound.
    pub damaged: Found,
    /// Fewer sound copies than holders.
    pub under_replicated: Found,
    /// No copy was found, and not all nodes answered.
    pub unreachable: Found,
    /// Stored, and part of no file for the grace at least.
    pub orphaned: Found,
    /// Copies on nodes that are no holders: after the ring has changed they go by themselves.
    pub surplus_copies: u64,
}

#[derive(Debug, Default, Serialize)]
pub struct Found {
    pub count: u64,
    /// The first of them.
    pub first: Vec<FoundChunk>,
}

#[derive(Debug, Serialize)]
pub struct FoundChunk {
    pub chunk: String,
    pub version: u64,
    /// Ring addresses: of the holders that lack it or whose copy is damaged; of an orphan, who has it.
    pub nodes: Vec<String>,
}

impl Found {
    pub fn add(&mut self, chunk: &ChunkRef, nodes: impl Iterator<Item = NodeRef>) {
        self.count += 1;
        if self.first.len() < NAMED {
            let name = ChunkName { file: chunk.file.clone(), index: chunk.id.index };
            let nodes = nodes.map(|node| node.ring_address().to_string()).collect();
            self.first.push(FoundChunk { chunk: name.to_string(), version: chunk.id.version.0, nodes });
        }
    }
}

impl Report {
    /// Where chunks with this verdict are noted; sound ones are not.
    pub fn of(&mut self, verdict: Verdict) -> Option<&mut Found> {
        match verdict {
            Verdict::Sound => None,
            Verdict::UnderReplicated => Some(&mut self.under_replicated),
            Verdict::Damaged => Some(&mut self.damaged),
            Verdict::Unreachable => Some(&mut self.unreachable),
            Verdict::Missing => Some(&mut self.missing),
        }
    }

    /// 0: nothing is wrong (orphans only take space); 1: something is; 2: that could not be found out.
    pub fn exit_code(&self) -> u8 {
        let found = self.missing.count + self.damaged.count + self.under_replicated.count;
        match (found, self.unreachable.count as usize + self.unreachable_nodes.len()) {
            (0, 0) => 0,
            (0, _) => 2,
            _ => 1,
        }
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
        out
    }

    fn kinds(&self) -> [(&'static str, &Found); 5] {
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
    use chordfs_types::chunk::{ChunkId, FileName, Version};

    use super::*;

    #[test]
    fn the_code_tells_what_to_do() {
        let chunk = |index| ChunkRef {
            file: FileName::new("a\nb").expect("a name"),
            id: ChunkId { version: Version(7), index },
        };
        let mut report = Report::default();
        assert_eq!(report.exit_code(), 0);
        (1..=25).for_each(|index| report.orphaned.add(&chunk(index), std::iter::empty()));
        assert_eq!(report.exit_code(), 0, "orphans take space and no more");
        report.unreachable_nodes.push("10.0.0.1:5057".into());
        assert_eq!(report.exit_code(), 2);
        report.of(Verdict::Damaged).expect("it is noted").add(&chunk(1), std::iter::empty());
        assert_eq!(report.exit_code(), 1);
        let text = report.for_people();
        assert!(
            text.contains("orphaned: 5 more") && text.contains("0 missing, 1 damaged, 0 under-replicated"),
            "{text}"
        );
        assert!(text.contains(r#"damaged: "a\nb_chunk_1" version 7"#), "{text}");
    }
}
