//! Time, the network, what goes wrong, and the programs.

use std::collections::{BTreeMap, BTreeSet};

use chordfs_types::namespace::{Ino, SessionId};

use super::{
    DIRECTORY, INODES, LEASE, MOUNTS, Millis, OUTSIDER, Omission, Random,
    history::{History, SimValue},
    leader::{Leader, Log, SimKind, SimOperation, SimRequest, SimResponse, SimWork},
    millis,
    mount::SimMount,
};

/// Programs begin nothing after this; what has begun has to end soon after.
const PROGRAMS_UNTIL: Millis = 30_000;
const END: Millis = PROGRAMS_UNTIL + 4 * LEASE;
const KEEPALIVE_EVERY: Millis = 2_000;

pub(super) struct World {
    random: Random,
    now: Millis,
    events: BTreeMap<(Millis, u64), SimEvent>,
    last_event: u64,
    /// When the last message arrives that is under way to and from each mount: none overtakes another.
    arrivals: [[Millis; 2]; MOUNTS],
    /// The connection over which each mount attached last at the leader.
    attached: [u64; MOUNTS],
    mounts: Vec<SimMount>,
    /// Messages that wait for a mount that is stopped.
    backlogs: Vec<Vec<SimEvent>>,
    leader: Option<Leader>,
    /// The mounts whose leases this leader has seen run out, until they attach again.
    expired: BTreeSet<usize>,
    term: u64,
    log: Log,
    pub(super) history: History,
    omission: Option<Omission>,
    max_per_session: usize,
    /// In percent.
    share_of_writes: u64,
    /// In percent, how often a mount works on an inode that the others leave alone just as often.
    share_of_own: u64,
    last_operation: u64,
    /// The mounts that made the changes.
    makers: BTreeMap<SimValue, usize>,
    pub(super) shows_events: bool,
}

#[derive(Clone, Debug)]
enum SimEvent {
    ToLeader {
        mount: usize,
        connection: u64,
        sent: Millis,
        request: SimRequest,
    },
    ToMount {
        mount: usize,
        connection: u64,
        response: SimResponse,
    },
    Committed {
        term: u64,
        work: SimWork,
    },
    Program {
        mount: usize,
    },
    Outsider,
    KeepAlive {
        mount: usize,
    },
    KernelForgets {
        mount: usize,
    },
    /// Some of the changes that were answered are logged.
    Flush {
        mount: usize,
    },
    Connect {
        mount: usize,
    },
    Break {
        mount: usize,
    },
    /// Nothing arrives in either direction until then.
    Cut {
        mount: usize,
        until: Millis,
    },
    Stop {
        mount: usize,
    },
    Resume {
        mount: usize,
    },
    LeaderFails,
    LeaderBegins,
    Expire,
}

impl World {
    pub(super) fn new(seed: u64, omission: Option<Omission>) -> Self {
        let mut random = Random(seed);
        let max_per_session = if random.chance(30) { 2 } else { 100 };
        let share_of_writes = [1, 5, 30, 60][random.between(0, 3) as usize];
        let share_of_own = [0, 80, 95][random.between(0, 2) as usize];
        let mounts = (0..MOUNTS).map(|mount| SimMount::new(SessionId(mount as u64 + 1), omission)).collect();
        let mut world = Self {
            random,
            now: 0,
            events: BTreeMap::new(),
            last_event: 0,
            arrivals: [[0; 2]; MOUNTS],
            attached: [0; MOUNTS],
            mounts,
            backlogs: vec![Vec::new(); MOUNTS],
            leader: None,
            expired: BTreeSet::new(),
            term: 0,
            log: Log::default(),
            history: History::default(),
            omission,
            max_per_session,
            share_of_writes,
            share_of_own,
            last_operation: 0,
            makers: BTreeMap::new(),
            shows_events: false,
        };
        world.after(0, SimEvent::LeaderBegins);
        for mount in 0..MOUNTS {
            world.after(1, SimEvent::Connect { mount });
            world.after(2, SimEvent::Program { mount });
            world.after(KEEPALIVE_EVERY, SimEvent::KeepAlive { mount });
            world.after(3, SimEvent::Flush { mount });
        }
        world.after(10, SimEvent::Expire);
        world.after(4, SimEvent::Outsider);
        world.plan_misfortune();
        world
    }

    /// Runs to the end, and returns why it is wrong.
    pub(super) fn run(&mut self) -> Result<(), String> {
        while let Some(((now, _), event)) = self.events.pop_first() {
            self.now = now;
            if now > END {
                break;
            }
            if self.shows_events && !matches!(event, SimEvent::Expire) {
                println!("{now:6} {event:?}");
            }
            self.handle(event).map_err(|error| format!("at {now} ms: {error}"))?;
            if let Some(leader) = &self.leader {
                leader.leases.check();
            }
        }
        self.check_end()?;
        self.history.check(&self.log, &self.makers)
    }

    /// Every wait has an end.
    fn check_end(&self) -> Result<(), String> {
        for mount in &self.mounts {
            let under_way = mount.operations.values().map(|under_way| &under_way.operation).chain(&mount.unlogged);
            if let Some(operation) = under_way.into_iter().next() {
                return Err(format!("{operation:?} of {:?} never ended", mount.session));
            }
        }
        Ok(())
    }

    fn plan_misfortune(&mut self) {
        let count = self.random.between(0, 6);
        for _ in 0..count {
            let (at, mount) =
                (self.random.between(1, PROGRAMS_UNTIL), self.random.between(0, MOUNTS as u64 - 1) as usize);
            let pause = self.random.between(1, 2 * LEASE);
            match self.random.between(0, 4) {
                0 => self.after(at, SimEvent::LeaderFails),
                1 => {
                    self.after(at, SimEvent::Break { mount });
                    // What it sends over the next connection is late.
                    let cut_at = at + self.random.between(10, 1_500);
                    if self.random.chance(50) {
                        self.after(cut_at, SimEvent::Cut { mount, until: cut_at + pause });
                    }
                }
                2 => self.after(at, SimEvent::Cut { mount, until: at + pause }),
                _ => {
                    self.after(at, SimEvent::Stop { mount });
                    self.after(at + pause, SimEvent::Resume { mount });
                }
            }
        }
    }

    fn after(&mut self, pause: Millis, event: SimEvent) {
        self.last_event += 1;
        self.events.insert((self.now + pause, self.last_event), event);
    }

    fn handle(&mut self, event: SimEvent) -> Result<(), String> {
        if let Some(mount) = event.of_process()
            && self.mounts[mount].is_stopped
        {
            self.backlogs[mount].push(event);
            return Ok(());
        }
        match event {
            SimEvent::ToLeader { mount, connection, sent, request } => {
                return self.at_leader(mount, connection, sent, request);
            }
            SimEvent::ToMount { mount, connection, response } => return self.at_mount(mount, connection, response),
            SimEvent::Committed { term, work } if term == self.term => {
                self.check_alone(&work)?;
                let (leader, log) = (self.leader.as_mut(), &mut self.log);
                leader.into_iter().for_each(|leader| leader.commit(work.clone(), self.now, log));
                self.carry_out();
            }
            SimEvent::Committed { .. } => {}
            SimEvent::Program { mount } => self.program(mount),
            SimEvent::Outsider => self.outsider(),
            SimEvent::KeepAlive { mount } => {
                if self.mounts[mount].is_attached {
                    self.send(mount, SimRequest::KeepAlive);
                }
                self.after(KEEPALIVE_EVERY, SimEvent::KeepAlive { mount });
            }
            SimEvent::KernelForgets { mount } => self.kernel_forgets(mount),
            SimEvent::Flush { mount } => {
                let most = self.random.between(1, 5) as usize;
                self.send_what_may_be(mount, most);
                self.later(20, 900, SimEvent::Flush { mount });
            }
            SimEvent::Connect { mount } => self.connect(mount),
            SimEvent::Break { mount } => self.disconnect(mount),
            SimEvent::Cut { mount, until } => {
                self.arrivals[mount] = self.arrivals[mount].map(|arrival| arrival.max(until))
            }
            SimEvent::Stop { mount } => self.mounts[mount].is_stopped = true,
            SimEvent::Resume { mount } => {
                self.mounts[mount].is_stopped = false;
                let backlog = std::mem::take(&mut self.backlogs[mount]);
                backlog.into_iter().for_each(|event| self.after(0, event));
            }
            SimEvent::LeaderFails => self.leader_fails(),
            SimEvent::LeaderBegins => self.leader_begins(),
            SimEvent::Expire => self.expire(),
        }
        Ok(())
    }

    fn at_leader(&mut self, mount: usize, connection: u64, sent: Millis, request: SimRequest) -> Result<(), String> {
        let current = self.leader.as_mut().filter(|_| self.mounts[mount].connection == connection);
        let Some(leader) = current else { return Ok(()) };
        let (session, attaches) = (self.mounts[mount].session, matches!(request, SimRequest::Attach { .. }));
        if attaches {
            self.attached[mount] = connection;
        }
        leader.receive((session, connection), sent, request, self.now, &mut self.log);
        if attaches && self.expired.remove(&mount) && leader.leases.held_by(session) > 0 {
            return Err(format!("{session:?} was given back leases that had run out"));
        }
        self.carry_out();
        Ok(())
    }

    fn at_mount(&mut self, mount: usize, connection: u64, response: SimResponse) -> Result<(), String> {
        if self.mounts[mount].connection != connection {
            return Ok(());
        }
        if let SimResponse::Notice(notice) = &response {
            self.later(1, 30, SimEvent::KernelForgets { mount });
            if !self.mounts[mount].is_attached {
                // A claim was refused.
                let lost = self.mounts[mount].lose(Some(&notice.inos));
                self.history.lose(lost);
            }
        }
        if let Some((ended, seen)) = self.mounts[mount].receive(response) {
            self.later(1, 10, SimEvent::KernelForgets { mount });
            let operation = ended.operation;
            match seen.first_key_value() {
                Some((ino, (value, _))) if !operation.writes() => {
                    self.history.read(operation.id, self.now, mount, (*ino, *value));
                }
                _ => self.history.changed(operation.id, self.now),
            }
        }
        self.send_what_may_be(mount, 0);
        Ok(())
    }

    /// Whether no other mount that has its leases has answered changes of the same inodes that are not logged.
    fn check_alone(&self, work: &SimWork) -> Result<(), String> {
        let new: Vec<SimOperation> =
            work.operations.iter().filter(|operation| self.log.applied(operation.id).is_none()).cloned().collect();
        let inos = self.log.concerned(&new);
        for other in self.mounts.iter().filter(|mount| mount.session != work.session) {
            let answered = other.unlogged.iter().filter(|change| change.inos.iter().any(|ino| inos.contains(ino)));
            let mut unlogged = answered.filter(|change| self.log.applied(change.id).is_none());
            if let Some(change) = unlogged.find(|change| !self.history.is_lost(change.id)) {
                return Err(format!("{new:?} of {:?} comes before {change:?} of {:?}", work.session, other.session));
            }
        }
        Ok(())
    }

    fn send_what_may_be(&mut self, mount: usize, most_unlogged: usize) {
        if self.mounts[mount].is_stopped {
            return;
        }
        let requests = self.mounts[mount].sendable(most_unlogged);
        requests.into_iter().for_each(|request| self.send(mount, request));
    }

    fn program(&mut self, mount: usize) {
        if self.now > PROGRAMS_UNTIL {
            return;
        }
        self.later(1, 400, SimEvent::Program { mount });
        let operation = self.operation(mount);
        let id = operation.id;
        if operation.writes() {
            self.makers.insert(id, mount);
        }
        self.history.begin(id, self.now);
        let known = match operation.inos[..] {
            [ino] if !operation.writes() => {
                self.mounts[mount].read_from_memory(ino, self.now).map(|value| (ino, value))
            }
            _ => None,
        };
        if let Some(known) = known {
            self.history.reads_from_memory += 1;
            self.history.read(id, self.now, mount, known);
        } else if self.mounts[mount].change_in_memory(&operation, self.now) {
            self.history.changes_from_memory += 1;
            self.history.changed(id, self.now);
        } else {
            self.mounts[mount].begin(operation);
            self.send_what_may_be(mount, 0);
        }
    }

    /// What it asks of a leader that fails is never answered.
    fn outsider(&mut self) {
        if self.now > PROGRAMS_UNTIL {
            return;
        }
        self.later(1, 2_500, SimEvent::Outsider);
        self.last_operation += 1;
        let operation = SimOperation { id: self.last_operation, inos: vec![self.random.ino()], kind: SimKind::Read };
        let Some(leader) = &mut self.leader else { return };
        self.history.begin(operation.id, self.now);
        leader.receive((OUTSIDER, 0), self.now, SimRequest::Read(operation), self.now, &mut self.log);
        self.carry_out();
    }

    fn answer_outsider(&mut self, response: SimResponse) {
        if let SimResponse::Answer { operations, seen, .. } = response
            && let Some((ino, (value, _))) = seen.first_key_value()
        {
            self.history.read(operations[0], self.now, MOUNTS, (*ino, *value));
        }
    }

    fn operation(&mut self, mount: usize) -> SimOperation {
        let is_own = self.random.chance(self.share_of_own);
        let (ino, second) = (self.random.ino(), self.random.ino());
        self.last_operation += 1;
        let all = || (1..=INODES).map(Ino).collect();
        let (inos, kind) = match (self.random.chance(self.share_of_writes), self.random.between(0, 9)) {
            (false, _) if is_own => (vec![Ino(mount as u64 + 1)], SimKind::Read),
            (false, _) => (vec![ino], SimKind::Read),
            (true, _) if is_own => (vec![Ino(mount as u64 + 1)], SimKind::Write),
            (true, 0..=2) => (all(), SimKind::Follow),
            (true, 3 | 4) if ino != DIRECTORY => (all(), SimKind::Move(ino)),
            (true, 5 | 6) if ino != second => (vec![ino, second], SimKind::Write),
            (true, _) => (vec![ino], SimKind::Write),
        };
        SimOperation { id: self.last_operation, inos, kind }
    }

    fn kernel_forgets(&mut self, mount: usize) {
        for notice in self.mounts[mount].finish_notices(self.now) {
            let keeps = self.random.chance(70);
            if !keeps && self.omission != Some(Omission::ReturnedIsForgotten) {
                self.mounts[mount].forget(&notice.inos);
            }
            self.send(mount, SimRequest::Acknowledge { notice: notice.id, keeps });
        }
        if self.mounts[mount].has_unfinished_notices() {
            self.later(10, 100, SimEvent::KernelForgets { mount });
        }
    }

    fn connect(&mut self, mount: usize) {
        if self.mounts[mount].is_attached {
            return;
        }
        if self.leader.is_some()
            && let Some(claims) = self.mounts[mount].claims(self.now)
        {
            self.history.lose(self.mounts[mount].lost());
            self.mounts[mount].connection += 1;
            self.send(mount, SimRequest::Attach { claims });
        }
        self.later(500, 3_000, SimEvent::Connect { mount });
    }

    fn disconnect(&mut self, mount: usize) {
        self.mounts[mount].disconnect();
        self.later(10, 1_000, SimEvent::Connect { mount });
    }

    fn leader_fails(&mut self) {
        if self.leader.take().is_none() {
            return;
        }
        self.later(500, 2_000, SimEvent::LeaderBegins);
        (0..MOUNTS).for_each(|mount| self.later(1, 50, SimEvent::Break { mount }));
    }

    fn leader_begins(&mut self) {
        self.term += 1;
        self.expired.clear();
        let mut leader = Leader::new(self.max_per_session, self.omission);
        if self.omission != Some(Omission::Grace) {
            leader.leases.begin_term(self.mounts.iter().map(|mount| mount.session), millis(self.now));
        }
        self.leader = Some(leader);
    }

    fn expire(&mut self) {
        self.after(10, SimEvent::Expire);
        let Some(leader) = &mut self.leader else { return };
        let expired = leader.expire(self.now, &mut self.log);
        for mount in 0..MOUNTS {
            if expired.contains(&self.mounts[mount].session) {
                self.expired.insert(mount);
                self.history.lose(self.mounts[mount].unlogged.iter().map(|change| change.id));
            }
            if expired.contains(&self.mounts[mount].session) && self.mounts[mount].is_attached {
                let at = self.arrival(mount, 1);
                self.after(at, SimEvent::Break { mount });
            }
        }
        self.carry_out();
    }

    /// Sends what the leader has to say, and commits what it proposes.
    fn carry_out(&mut self) {
        let Some(leader) = &mut self.leader else { return };
        let (responses, proposals) = (std::mem::take(&mut leader.responses), std::mem::take(&mut leader.proposals));
        for (session, connection, response) in responses {
            if session == OUTSIDER {
                self.answer_outsider(response);
                continue;
            }
            let mount = session.0 as usize - 1;
            let (connection, at) = (connection.unwrap_or(self.attached[mount]), self.arrival(mount, 1));
            self.after(at, SimEvent::ToMount { mount, connection, response });
        }
        for work in proposals {
            let term = self.term;
            let pause =
                if self.random.chance(10) { self.random.between(20, 1_500) } else { self.random.between(1, 20) };
            self.after(pause, SimEvent::Committed { term, work });
        }
    }

    fn send(&mut self, mount: usize, request: SimRequest) {
        let (connection, sent, at) = (self.mounts[mount].connection, self.now, self.arrival(mount, 0));
        self.after(at, SimEvent::ToLeader { mount, connection, sent, request });
    }

    /// How long a message in this direction takes. Most are fast, some are late.
    fn arrival(&mut self, mount: usize, direction: usize) -> Millis {
        let delay = if self.random.chance(5) { self.random.between(10, 1_500) } else { self.random.between(1, 5) };
        let at = self.arrivals[mount][direction].max(self.now + delay);
        self.arrivals[mount][direction] = at;
        at - self.now
    }

    fn later(&mut self, low: Millis, high: Millis, event: SimEvent) {
        let pause = self.random.between(low, high);
        self.after(pause, event);
    }
}

impl SimEvent {
    /// The mount whose process has to run for this.
    fn of_process(&self) -> Option<usize> {
        match self {
            Self::ToMount { mount, .. }
            | Self::KeepAlive { mount }
            | Self::KernelForgets { mount }
            | Self::Flush { mount }
            | Self::Connect { mount }
            | Self::Break { mount } => Some(*mount),
            _ => None,
        }
    }
}
