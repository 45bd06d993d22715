//! Reports chunks that no commit will name to the namespace, which deletes them: many at a time, for all files of the
//! mount, in the background. What cannot be reported is found by the nodes after some hours.

use std::collections::VecDeque;

use chordfs_net::clients::NamespaceClient;
use chordfs_types::{
    chunk::{ChunkId, FileName},
    namespace::{Change, DiscardedRuns, Extent, MAX_COLLECTED_RUNS},
};
use parking_lot::Mutex;

/// The most bytes that the names of files take in one report.
const REPORT_NAME_BYTES: usize = 256 << 10;
/// The most runs that wait. Beyond this, the oldest are left to the nodes.
const MAX_WAITING: usize = 1 << 20;

#[derive(Default)]
pub(super) struct Discards {
    waiting: Mutex<VecDeque<(FileName, Extent)>>,
    reporting: tokio::sync::Mutex<()>,
}

impl Discards {
    pub(super) fn add(&self, file: &FileName, runs: Vec<Extent>) {
        let mut waiting = self.waiting.lock();
        waiting.extend(runs.into_iter().map(|run| (file.clone(), run)));
        let excess = waiting.len().saturating_sub(MAX_WAITING);
        waiting.drain(..excess);
    }

    /// Whether this chunk of the file waits for its report.
    pub(super) fn contains(&self, file: &FileName, id: ChunkId) -> bool {
        let has = |run: &Extent| run.version == id.version && run.range().contains(&u64::from(id.index));
        self.waiting.lock().iter().any(|(name, run)| has(run) && name == file)
    }

    /// Whether something waits and is not being reported.
    pub(super) fn are_due(&self) -> bool {
        !self.waiting.lock().is_empty() && self.reporting.try_lock().is_ok()
    }

    /// Reports everything, unless a report fails. One without an answer is repeated at the next call.
    pub(super) async fn report(&self, namespace: &dyn NamespaceClient) {
        let _reporting = self.reporting.lock().await;
        loop {
            let files = self.take_report();
            if files.is_empty() {
                return;
            }
            let Err(error) = namespace.apply(Change::Discard { files: files.clone() }).await else { continue };
            tracing::debug!(%error, "cannot report chunks that are not needed any more");
            if error.is_unanswered() {
                files.into_iter().for_each(|file| self.add(&file.file, file.runs));
                return;
            }
        }
    }

    fn take_report(&self) -> Vec<DiscardedRuns> {
        let mut waiting = self.waiting.lock();
        let (mut files, mut name_bytes): (Vec<DiscardedRuns>, usize) = (Vec::new(), 0);
        for _ in 0..MAX_COLLECTED_RUNS {
            let Some((file, run)) = waiting.pop_front() else { break };
            match files.last_mut().filter(|last| last.file == file) {
                Some(last) => last.runs.push(run),
                None => {
                    name_bytes += file.as_bytes().len();
                    files.push(DiscardedRuns { file, runs: vec![run] });
                }
            }
            if name_bytes > REPORT_NAME_BYTES {
                break;
            }
        }
        files
    }
}
