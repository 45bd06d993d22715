//! How many nodes the pool shall have: decided by an operator or by a scaler, one decision after the other.
//!
//! The settings say which of the two may decide, and within which limits. They are checked here, where the settings of
//! that very moment are, so no decision slips past a change of the settings.

use std::sync::Arc;

use chordfs_types::{
    fs_error::FsError,
    namespace::{
        MAX_POOL_REASON_BYTES, PoolDecider, PoolDecision, PoolSize, PoolStep, REMEMBERED_POOL_DECISIONS, Reply,
    },
    ring_config::{Decimal, PoolConfig, PoolMode},
};

use super::{Transaction, invalid};

impl Transaction<'_> {
    /// Takes over a decision if no other one came first: of two scalers that see the same, one acts.
    pub(super) fn resize_pool(&mut self, expected: u64, step: &PoolStep) -> Result<Reply, FsError> {
        check_figures(step)?;
        let changed = expected == self.tables.pool_size.serial;
        if changed {
            check_step(step, &self.tables.pool_size, &self.tables.config.pool)?;
            let decision = PoolDecision { serial: expected + 1, at: self.logged, step: step.clone() };
            remember(Arc::make_mut(&mut self.tables.pool_size), decision);
        }
        let PoolSize { serial, wanted, .. } = *self.tables.pool_size;
        Ok(Reply::PoolResized { serial, wanted, changed })
    }
}

fn remember(size: &mut PoolSize, decision: PoolDecision) {
    (size.serial, size.wanted) = (decision.serial, decision.step.to);
    size.decisions.push(decision);
    let surplus = size.decisions.len().saturating_sub(REMEMBERED_POOL_DECISIONS);
    size.decisions.drain(..surplus);
}

fn check_figures(step: &PoolStep) -> Result<(), FsError> {
    let bytes = step.reason.len();
    if bytes == 0 || bytes > MAX_POOL_REASON_BYTES {
        return Err(invalid(format!(
            "the reason of a decision about the pool has {bytes} bytes: 1 to {MAX_POOL_REASON_BYTES} are allowed"
        )));
    }
    for (name, share) in [("miss rate", step.miss_rate), ("used share of the fullest disk", step.fullest_disk)] {
        if let Some(share) = share.filter(|share| *share > Decimal::ONE) {
            return Err(invalid(format!("the {name} of a decision about the pool is {share}: it is from 0 to 1")));
        }
    }
    Ok(())
}

fn check_step(step: &PoolStep, size: &PoolSize, config: &PoolConfig) -> Result<(), FsError> {
    match (step.by, config.mode) {
        (PoolDecider::Operator, PoolMode::Automatic) => {
            return Err(invalid("the scaler chooses the size of the pool; set pool.mode to manual first"));
        }
        (PoolDecider::Scaler, PoolMode::Manual) => {
            return Err(invalid("operators choose the size of the pool, because pool.mode is manual"));
        }
        _ => {}
    }
    match step.to {
        to if to == size.wanted => Err(invalid(match to {
            Some(to) => format!("the pool is to have {to} nodes already"),
            None => "nobody has chosen a size of the pool: every pool follows its own settings already".into(),
        })),
        None if step.by == PoolDecider::Scaler => Err(invalid("only an operator releases the pool")),
        Some(to) if to > config.largest => {
            Err(invalid(format!("the pool may not have {to} nodes, because pool.largest is {}", config.largest)))
        }
        Some(to) if to < config.smallest => {
            Err(invalid(format!("the pool may not have {to} nodes, because pool.smallest is {}", config.smallest)))
        }
        _ => Ok(()),
    }
}
