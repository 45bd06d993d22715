//! A network between one machine and all others that alters, cuts, delays, repeats and swallows bytes: a proxy in the
//! machine's network namespace, through which every connection to the three ports of a node is led without the program's
//! knowledge. It works on what TCP carries, so no checksum of the network hides what it does.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, connect, getsockopt, setsockopt, socket, sockopt,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::programs::run_command;

const PORT: u16 = 7000;
/// Marks the proxy's own connections, which are not led to it again.
const OWN_MARK: u32 = 7;
/// Bytes of one direction of a connection until something happens to it.
const BYTES_UNTIL_FAULT: std::ops::Range<u64> = 2_000..600_000;
const DELAY: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug)]
enum Fault {
    Alter,
    Cut,
    Delay,
    Repeat,
    Swallow,
}

const FAULTS: [Fault; 5] = [Fault::Alter, Fault::Cut, Fault::Delay, Fault::Repeat, Fault::Swallow];

/// Ends with its namespace.
#[derive(Clone, Default)]
pub struct HostileNetwork {
    /// How often each kind of fault has happened.
    counts: Arc<[AtomicUsize; FAULTS.len()]>,
    /// While it is 0, everything passes.
    is_hostile: Arc<AtomicUsize>,
    connections: Arc<AtomicU64>,
}

impl HostileNetwork {
    /// Begins in the namespace of the calling thread, and lets everything pass until [`Self::begin`].
    #[track_caller]
    pub fn start(seed: u64) -> Self {
        let rules = [
            "add table ip hostile".to_owned(),
            "add chain ip hostile output { type nat hook output priority -100; }".to_owned(),
            format!("add rule ip hostile output meta mark != {OWN_MARK} tcp dport 5057-5059 redirect to :{PORT}"),
        ];
        for rule in rules {
            run_command(Command::new("nft").arg(&rule), Duration::from_secs(10)).ok();
        }
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("a namespace of its own");
        let network = Self::default();
        let accepting = network.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = accepting.connections.fetch_add(1, SeqCst);
                // A connection that cannot be made is one that the network has cut.
                let _ = accepting.serve(stream, seed.wrapping_add(2 * number));
            }
        });
        network
    }

    pub fn begin(&self) {
        self.is_hostile.store(1, SeqCst);
    }

    pub fn end(&self) {
        self.is_hostile.store(0, SeqCst);
    }

    /// How often the fault happened that happened least.
    pub fn fewest_faults(&self) -> usize {
        self.counts.iter().map(|count| count.load(SeqCst)).min().unwrap_or(0)
    }

    fn serve(&self, inner: TcpStream, seed: u64) -> io::Result<()> {
        let target = getsockopt(&inner, sockopt::OriginalDst)?;
        let target = SocketAddrV4::new(u32::from_be(target.sin_addr.s_addr).into(), u16::from_be(target.sin_port));
        let outer = connect_marked(target)?;
        let back = seed.wrapping_add(1);
        for (seed, from, to) in [(seed, inner.try_clone()?, outer.try_clone()?), (back, outer, inner)] {
            let network = self.clone();
            thread::spawn(move || {
                let _ = network.carry(&from, &to, StdRng::seed_from_u64(seed));
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            });
        }
        Ok(())
    }

    /// Carries bytes in one direction until either end closes.
    fn carry(&self, mut from: &TcpStream, mut to: &TcpStream, mut random: StdRng) -> io::Result<()> {
        let (mut buffer, mut left) = (vec![0; 16 << 10], random.random_range(BYTES_UNTIL_FAULT));
        loop {
            let count = from.read(&mut buffer)?;
            let bytes = &mut buffer[..count];
            if bytes.is_empty() {
                return Ok(());
            }
            left = left.saturating_sub(count as u64);
            if left > 0 || self.is_hostile.load(SeqCst) == 0 {
                to.write_all(bytes)?;
                continue;
            }
            left = random.random_range(BYTES_UNTIL_FAULT);
            let kind = random.random_range(0..FAULTS.len());
            self.counts[kind].fetch_add(1, SeqCst);
            match FAULTS[kind] {
                Fault::Alter => {
                    bytes[random.random_range(0..count)] ^= 1 << random.random_range(0..8);
                    to.write_all(bytes)?;
                }
                Fault::Cut => return Ok(()),
                Fault::Delay => {
                    thread::sleep(DELAY);
                    to.write_all(bytes)?;
                }
                Fault::Repeat => {
                    to.write_all(bytes)?;
                    to.write_all(bytes)?;
                }
                Fault::Swallow => {}
            }
        }
    }
}

fn connect_marked(target: SocketAddrV4) -> io::Result<TcpStream> {
    let fd: OwnedFd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::Mark, &OWN_MARK)?;
    connect(fd.as_raw_fd(), &SockaddrIn::from(target))?;
    let stream = TcpStream::from(fd);
    debug_assert_eq!(stream.peer_addr()?, SocketAddr::from(target));
    Ok(stream)
}
