//! Time, the network, what goes wrong, and the programs.

use std::collections::BTreeMap;

use chordfs_types::namespace::SessionId;

use super::{
    LEASE, MOUNTS, Millis, Omission, Random,
    history::History,
    leader::{Leader, Log, SimOperation, SimRequest, SimResponse, SimWork},
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
    term: u64,
    log: Log,
    pub(super) history: History,
    omission: Option<Omission>,
    max_per_session: usize,
    /// In percent.
    share_of_writes: u64,
    last_operation: u64,
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
    KeepAlive {
        mount: usize,
    },
    KernelForgets {
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
        let share_of_writes = [1, 5, 30][random.between(0, 2) as usize];
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
            term: 0,
            log: Log::default(),
            history: History::default(),
            omission,
            max_per_session,
            share_of_writes,
            last_operation: 0,
            shows_events: false,
        };
        world.after(0, SimEvent::LeaderBegins);
        for mount in 0..MOUNTS {
            world.after(1, SimEvent::Connect { mount });
            world.after(2, SimEvent::Program { mount });
            world.after(KEEPALIVE_EVERY, SimEvent::KeepAlive { mount });
        }
        world.after(10, SimEvent::Expire);
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
        self.check_end()
    }

    /// Every wait has an end.
    fn check_end(&self) -> Result<(), String> {
        for mount in &self.mounts {
            if let Some(under_way) = mount.operations.values().next() {
                return Err(format!("{:?} of {:?} never ended", under_way.operation, mount.session));
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
                1 => self.after(at, SimEvent::Break { mount }),
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
            SimEvent::ToLeader { mount, connection, sent, request } => self.at_leader(mount, connection, sent, request),
            SimEvent::ToMount { mount, connection, response } => return self.at_mount(mount, connection, response),
            SimEvent::Committed { term, work } if term == self.term => {
                let (leader, log) = (self.leader.as_mut(), &mut self.log);
                leader.into_iter().for_each(|leader| leader.commit(work.clone(), self.now, log));
                self.carry_out();
            }
            SimEvent::Committed { .. } => {}
            SimEvent::Program { mount } => return self.program(mount),
            SimEvent::KeepAlive { mount } => {
                if self.mounts[mount].is_attached {
                    self.send(mount, SimRequest::KeepAlive);
                }
                self.after(KEEPALIVE_EVERY, SimEvent::KeepAlive { mount });
            }
            SimEvent::KernelForgets { mount } => self.kernel_forgets(mount),
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

    fn at_leader(&mut self, mount: usize, connection: u64, sent: Millis, request: SimRequest) {
        let Some(leader) = self.leader.as_mut().filter(|_| self.mounts[mount].connection == connection) else { return };
        if matches!(request, SimRequest::Attach { .. }) {
            self.attached[mount] = connection;
        }
        leader.receive((self.mounts[mount].session, connection), sent, request, self.now, &mut self.log);
        self.carry_out();
    }

    fn at_mount(&mut self, mount: usize, connection: u64, response: SimResponse) -> Result<(), String> {
        if self.mounts[mount].connection != connection {
            return Ok(());
        }
        match &response {
            SimResponse::Attached { .. } => {
                let again = self.mounts[mount].attached();
                again.into_iter().for_each(|request| self.send(mount, request));
            }
            SimResponse::Notice(_) => self.later(1, 30, SimEvent::KernelForgets { mount }),
            _ => {}
        }
        if let Some((ended, place)) = self.mounts[mount].receive(response) {
            self.later(1, 10, SimEvent::KernelForgets { mount });
            self.history.end(&ended.begun, self.now, place)?;
        }
        Ok(())
    }

    fn program(&mut self, mount: usize) -> Result<(), String> {
        if self.now > PROGRAMS_UNTIL {
            return Ok(());
        }
        self.later(1, 400, SimEvent::Program { mount });
        let (ino, second) = (self.random.ino(), self.random.ino());
        let writes = self.random.chance(self.share_of_writes);
        let inos = if writes && ino != second && self.random.chance(30) { vec![ino, second] } else { vec![ino] };
        let begun = self.history.begin(self.now, &inos);
        let known = if writes { None } else { self.mounts[mount].read_from_memory(ino, self.now) };
        if let Some(place) = known {
            self.history.from_memory += 1;
            return self.history.end(&begun, self.now, place);
        }
        self.last_operation += 1;
        let operation = SimOperation { id: self.last_operation, inos, writes };
        let request = self.mounts[mount].begin(operation, begun);
        if self.mounts[mount].is_attached && !self.mounts[mount].is_stopped {
            self.send(mount, request);
        } else if self.mounts[mount].is_attached {
            let (connection, sent) = (self.mounts[mount].connection, self.now);
            self.backlogs[mount].push(SimEvent::ToLeader { mount, connection, sent, request });
        }
        Ok(())
    }

    fn kernel_forgets(&mut self, mount: usize) {
        for notice in self.mounts[mount].finish_notices() {
            let keeps = self.random.chance(70);
            if !keeps {
                self.mounts[mount].forget(&notice.inos);
            }
            self.send(mount, SimRequest::Acknowledge { notice: notice.id, keeps });
        }
    }

    fn connect(&mut self, mount: usize) {
        if self.mounts[mount].is_attached {
            return;
        }
        if self.leader.is_some() {
            self.mounts[mount].connection += 1;
            let claims = self.mounts[mount].claims(self.now);
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
            let mount = session.0 as usize - 1;
            let (connection, at) = (connection.unwrap_or(self.attached[mount]), self.arrival(mount, 1));
            self.after(at, SimEvent::ToMount { mount, connection, response });
        }
        for work in proposals {
            let term = self.term;
            self.later(1, 20, SimEvent::Committed { term, work });
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
            | Self::Connect { mount }
            | Self::Break { mount } => Some(*mount),
            _ => None,
        }
    }
}
