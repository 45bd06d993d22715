//! Decides which segment is worth rewriting, and how fast, from the usage of the segments and of the disk alone.
//!
//! Rewriting a segment whose dead part is d copies (1 - d) / d bytes for each byte that it frees. The required dead
//! part falls as the disk fills, since space becomes more expensive than writing, but never below a tenth:
//!
//! | disk used | dead at least | copied for a byte freed, at most |
//! |---|---|---|
//! | to 20 % | 50 % (`compact_dead_percent`) | 1 |
//! | 50 % | 30 % | 2.3 |
//! | 70 % | 17 % | 4.9 |
//! | from 80 % | 10 % | 9 |
//!
//! The last column bounds the write amplification under steady overwriting. The bound is not reached, because the
//! segment with the largest dead part is rewritten first, and that part is above the mean. A segment in which no record
//! has died for a minute will hardly gain more dead records by itself; it is rewritten, slowly, when an eighth of it is
//! dead, whatever the disk usage, so an idle store shrinks to little more than its live records. Under random
//! overwriting few segments are that quiet; for those that are, 7 bytes are copied for each one freed. A rate limits
//! the copying as well.
//!
//! A segment that is being filled can be neither rewritten nor removed; if it is worth rewriting and has enough dead
//! bytes, it is sealed first. A segment is rewritten only if its live records fit on the disk beside the original.
//! Wholly dead segments need no space and are removed before this policy is consulted.
//!
//! Two kinds of segments are special. A segment that could not be synced is rewritten before all others, however much
//! of it is alive: no sync of the store succeeds until its live records lie elsewhere. A segment with unreadable
//! records is kept for their sake, so rewriting it would free no space; it waits for the next open.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

use crate::{segment::SegmentUsage, writing::space::DiskUsage};

/// The disk counts as empty up to the first of these percentages used, and as full from the second on.
const EASY_PERCENT: u64 = 20;
const TIGHT_PERCENT: u64 = 80;
/// The dead part that a segment needs on a full disk,
const TIGHT_DEAD_PERCENT: u64 = 10;
/// and the dead part that it needs when it is quiet.
const QUIET_DEAD_PERCENT: u64 = 12;
/// A segment that is being filled is not sealed for fewer dead bytes than this, as there is little to gain.
const WORTH_SEALING_BYTES: u64 = 1 << 20;
/// The space that a rewrite needs on the disk beside the records: for the hint and the list of dead records.
const MARGIN_BYTES: u64 = 1 << 20;
/// Segments below this part of a full one are small,
const SMALL_PART: u64 = 8;
/// and are merged when there are this many.
const SMALL_SEGMENTS: usize = 8;
/// The rate of urgent rewriting: a GiB of half-dead segments in 8 s.
const PRESSED_BYTES_PER_SECOND: u64 = 64 << 20;
/// The rate of other rewriting: the same in a minute.
const QUIET_BYTES_PER_SECOND: u64 = 8 << 20;

#[derive(Clone, Copy, Debug)]
pub(crate) struct CompactionLimits {
    /// The dead part that a segment needs while there is enough space.
    pub dead_percent: u64,
    pub segment_bytes: u64,
    /// A segment is quiet when none of its records has died for this long.
    pub quiet: Duration,
}

/// Why a segment is rewritten, the weakest reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CompactionReason {
    Small,
    Quiet,
    /// The segment's dead space is worth more than the copying.
    Dead,
    /// A sync of the segment has failed, so its live records are not safe there.
    Failed,
}

impl CompactionReason {
    /// How long to wait after `bytes` were copied in `took`.
    pub fn pause(self, bytes: u64, took: Duration) -> Duration {
        let rate = match self {
            Self::Failed | Self::Dead => PRESSED_BYTES_PER_SECOND,
            Self::Quiet | Self::Small => QUIET_BYTES_PER_SECOND,
        };
        Duration::from_secs_f64(bytes as f64 / rate as f64).saturating_sub(took)
    }
}

/// Returns the sealed segment to rewrite, if there is one and space for it: the one with the strongest reason, and
/// among those the one with the largest dead part.
pub(crate) fn choose(
    usages: &[SegmentUsage],
    disk: DiskUsage,
    limits: CompactionLimits,
) -> Option<(u32, CompactionReason)> {
    let fits = |usage: &&SegmentUsage| usage.live_bytes.saturating_add(MARGIN_BYTES) <= disk.free_bytes;
    let sealed = || usages.iter().filter(|usage| usage.sealed && gains(usage)).filter(fits);
    let dead = sealed().filter_map(|usage| Some((worth(usage, disk, limits)?, dead_percent(usage), usage)));
    if let Some((reason, _, usage)) = dead.max_by_key(|(reason, percent, _)| (*reason, *percent)) {
        return Some((usage.number, reason));
    }
    let small = |usage: &&SegmentUsage| usage.written_bytes < limits.segment_bytes / SMALL_PART;
    let many = sealed().filter(small).count() >= SMALL_SEGMENTS;
    sealed().find(small).filter(|_| many).map(|usage| (usage.number, CompactionReason::Small))
}

/// Whether a segment that is being filled should be sealed, so that it can be rewritten.
pub(crate) fn worth_sealing(usage: &SegmentUsage, disk: DiskUsage, limits: CompactionLimits) -> bool {
    let dead_bytes = usage.written_bytes.saturating_sub(usage.live_bytes);
    usage.failed || (dead_bytes >= WORTH_SEALING_BYTES && worth(usage, disk, limits).is_some())
}

/// Whether a rewrite gains anything: it frees space, or moves live records to where they are safe. A segment without
/// live records is not rewritten: it is here only because it could not be removed yet.
fn gains(usage: &SegmentUsage) -> bool {
    usage.live_bytes > 0 && (!usage.unreadable || usage.failed)
}

fn worth(usage: &SegmentUsage, disk: DiskUsage, limits: CompactionLimits) -> Option<CompactionReason> {
    if usage.failed {
        return Some(CompactionReason::Failed);
    }
    let dead = dead_percent(usage);
    if dead > needed_percent(disk.used_percent, limits.dead_percent) {
        return Some(CompactionReason::Dead);
    }
    (dead >= QUIET_DEAD_PERCENT && usage.quiet_for >= limits.quiet).then_some(CompactionReason::Quiet)
}

fn dead_percent(usage: &SegmentUsage) -> u64 {
    usage.written_bytes.saturating_sub(usage.live_bytes) * 100 / usage.written_bytes.max(1)
}

/// The dead part that a segment needs: falls linearly from `at_ease` on an empty disk to a tenth on a full one.
fn needed_percent(used_percent: u64, at_ease: u64) -> u64 {
    let filled = used_percent.clamp(EASY_PERCENT, TIGHT_PERCENT) - EASY_PERCENT;
    at_ease - at_ease.saturating_sub(TIGHT_DEAD_PERCENT) * filled / (TIGHT_PERCENT - EASY_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LIMITS: CompactionLimits =
        CompactionLimits { dead_percent: 50, segment_bytes: 128 * MIB, quiet: Duration::from_secs(60) };
    const BUSY: Duration = Duration::from_secs(1);
    const QUIET: Duration = Duration::from_secs(60);

    /// A full segment with this many of 128 MiB alive.
    fn segment(number: u32, live_mib: u64, quiet_for: Duration) -> SegmentUsage {
        let (written_bytes, live_bytes) = (128 * MIB, live_mib * MIB);
        SegmentUsage { number, sealed: true, failed: false, unreadable: false, written_bytes, live_bytes, quiet_for }
    }

    fn disk(used_percent: u64) -> DiskUsage {
        DiskUsage { used_percent, free_bytes: 1000 * MIB }
    }

    #[test]
    fn the_fuller_the_disk_the_less_has_to_be_dead() {
        let needed: Vec<u64> = [0, 20, 35, 50, 70, 80, 100, 1000].map(|used| needed_percent(used, 50)).into();
        assert_eq!(needed, [50, 50, 40, 30, 17, 10, 10, 10]);
        assert!((0..100).all(|used| needed_percent(used + 1, 50) <= needed_percent(used, 50)));
        assert_eq!(needed_percent(100, 5), 5, "a setting below the tenth stays");
        let third_dead = [segment(1, 85, BUSY)];
        assert_eq!(choose(&third_dead, disk(20), LIMITS), None);
        assert_eq!(choose(&third_dead, disk(50), LIMITS), Some((1, CompactionReason::Dead)));
    }

    /// After a ring grew, a half-full disk had three half-dead segments, none of them more than half dead.
    #[test]
    fn half_dead_segments_on_a_half_full_disk_are_rewritten() {
        let usages = [segment(1, 64, BUSY), segment(2, 65, BUSY), segment(3, 63, BUSY)];
        assert_eq!(choose(&usages, disk(50), LIMITS), Some((3, CompactionReason::Dead)), "the largest dead part first");
        assert_eq!(choose(&usages[..2], disk(50), LIMITS), Some((1, CompactionReason::Dead)));
        assert_eq!(choose(&usages[..2], disk(0), LIMITS), None, "an empty disk is not urgent");
    }

    #[test]
    fn a_quiet_store_shrinks_on_any_disk_and_is_then_left_alone() {
        assert_eq!(choose(&[segment(1, 112, QUIET)], disk(1), LIMITS), Some((1, CompactionReason::Quiet)));
        assert_eq!(choose(&[segment(1, 112, BUSY)], disk(1), LIMITS), None, "more of it may die by itself");
        assert_eq!(choose(&[segment(1, 114, QUIET)], disk(1), LIMITS), None);
        let both = [segment(1, 60, QUIET), segment(2, 80, QUIET), segment(3, 20, BUSY)];
        assert_eq!(choose(&both[..2], disk(1), LIMITS), Some((1, CompactionReason::Dead)), "the stronger reason first");
        assert_eq!(choose(&both, disk(1), LIMITS), Some((3, CompactionReason::Dead)));
    }

    #[test]
    fn nothing_is_rewritten_without_room_for_it() {
        let usages = [segment(1, 30, BUSY), segment(2, 60, BUSY), segment(3, 10, BUSY)];
        let free = |mib| DiskUsage { used_percent: 99, free_bytes: mib * MIB };
        assert_eq!(choose(&usages[..2], free(31), LIMITS), Some((1, CompactionReason::Dead)));
        assert_eq!(choose(&usages[..2], free(30), LIMITS), None);
        assert_eq!(choose(&usages, free(12), LIMITS), Some((3, CompactionReason::Dead)), "the one that fits");
    }

    #[test]
    fn a_segment_that_is_being_filled_is_sealed_when_enough_is_dead() {
        let filling = |written, live, quiet_for| SegmentUsage {
            sealed: false,
            written_bytes: written * MIB,
            ..segment(1, live, quiet_for)
        };
        assert!(worth_sealing(&filling(100, 40, BUSY), disk(10), LIMITS));
        assert!(!worth_sealing(&filling(100, 60, BUSY), disk(10), LIMITS));
        assert!(worth_sealing(&filling(100, 60, BUSY), disk(60), LIMITS));
        assert!(worth_sealing(&filling(100, 80, QUIET), disk(10), LIMITS));
        let few = SegmentUsage { written_bytes: 1000, live_bytes: 0, ..filling(0, 0, QUIET) };
        assert!(!worth_sealing(&few, disk(99), LIMITS));
        assert_eq!(choose(&[filling(100, 0, QUIET)], disk(99), LIMITS), None, "not before it is sealed");
    }

    #[test]
    fn a_segment_that_could_not_be_synced_is_rewritten_first() {
        let (dead, failed) = (segment(1, 10, BUSY), SegmentUsage { failed: true, ..segment(2, 128, BUSY) });
        assert_eq!(choose(&[dead, failed], disk(99), LIMITS), Some((2, CompactionReason::Failed)));
        let filling = SegmentUsage { sealed: false, ..failed };
        assert_eq!(choose(&[filling], disk(99), LIMITS), None, "not before it is sealed");
        assert!(worth_sealing(&filling, disk(1), LIMITS));
    }

    #[test]
    fn a_segment_with_unreadable_records_is_rewritten_only_to_save_its_live_records() {
        let unreadable = SegmentUsage { unreadable: true, ..segment(1, 10, QUIET) };
        assert_eq!(choose(&[unreadable], disk(99), LIMITS), None);
        assert_eq!(choose(&[unreadable, segment(2, 80, QUIET)], disk(1), LIMITS), Some((2, CompactionReason::Quiet)));
        let failed = SegmentUsage { failed: true, ..unreadable };
        assert_eq!(choose(&[failed], disk(1), LIMITS), Some((1, CompactionReason::Failed)));
        assert_eq!(
            choose(&[SegmentUsage { live_bytes: 0, ..failed }], disk(1), LIMITS),
            None,
            "all live records have moved"
        );
    }

    #[test]
    fn many_small_segments_are_merged() {
        let small = |number| SegmentUsage { written_bytes: MIB, live_bytes: MIB, ..segment(number, 0, BUSY) };
        let usages: Vec<SegmentUsage> = (1..=8).map(small).collect();
        assert_eq!(choose(&usages[..7], disk(1), LIMITS), None);
        assert_eq!(choose(&usages, disk(1), LIMITS), Some((1, CompactionReason::Small)));
    }

    /// Overwrites random ones of 3,000 pages on a disk of `capacity` pages: pages copied for each one written, and the
    /// most pages that the disk had to hold.
    fn overwrite(capacity: u64) -> (f64, u64) {
        let (mut random, mut copied, mut most) = (1_u64, 0, 0);
        // Written and live pages; the last one is being filled, and full with a hundred.
        let mut segments: Vec<(u64, u64)> = vec![(100, 100); 30];
        segments.push((0, 0));
        let add = |segments: &mut Vec<(u64, u64)>| {
            let last = segments.last_mut().unwrap();
            *last = (last.0 + 1, last.1 + 1);
            if last.0 == 100 {
                segments.push((0, 0));
            }
        };
        const STEPS: u64 = 30_000;
        for _ in 0..STEPS {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut at = (random >> 33) % 3000;
            let hit = segments.iter_mut().find(|(_, live)| {
                let here = at < *live;
                at = at.saturating_sub(*live);
                here
            });
            hit.unwrap().1 -= 1;
            add(&mut segments);
            let used = segments.iter().map(|(written, _)| written).sum::<u64>();
            most = most.max(used);
            let usage = |(number, (written, live)): (u32, &(u64, u64))| SegmentUsage {
                sealed: *written == 100,
                written_bytes: written * MIB,
                ..segment(number, *live, BUSY)
            };
            let usages: Vec<SegmentUsage> = (0..).zip(&segments).map(usage).collect();
            let disk = DiskUsage { used_percent: used * 100 / capacity, free_bytes: u64::MAX };
            if let Some((number, _)) = choose(&usages, disk, LIMITS) {
                let (_, live) = segments.remove(number as usize);
                (0..live).for_each(|_| add(&mut segments));
                copied += live;
            }
        }
        (copied as f64 / STEPS as f64, most)
    }

    #[test]
    fn steady_overwriting_costs_no_more_than_the_table_says() {
        for (capacity, bound) in [(30_000, 1.0), (7_000, 3.0), (3_800, 9.0)] {
            let (copied, most) = overwrite(capacity);
            println!("disk of {capacity}: {copied:.2} copied for each written, {most} pages at most");
            assert!(copied > 0.0 && copied <= bound, "disk of {capacity}: {copied} copied for each written");
            assert!(most <= capacity, "{most} pages on a disk of {capacity}");
        }
    }
}
