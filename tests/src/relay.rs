//! A network between one client and a server: loses datagrams of media, or carries no more than so many bytes a second.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the network is like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions {
    /// Of a hundred datagrams of media so many are lost, in both directions.
    pub loss_percent: u8,
    /// Bytes a second from the server to the client, and how long one may wait before it is lost.
    pub carries: Option<(f64, Duration)>,
}

/// Such a network.
pub struct Relay {
    address: SocketAddr,
    conditions: Arc<Mutex<Conditions>>,
    /// Datagrams that were lost.
    pub lost: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
}

/// One direction of it.
struct Way {
    from: UdpSocket,
    conditions: Arc<Mutex<Conditions>>,
    lost: Arc<AtomicU64>,
    random: fastrand::Rng,
    /// What is on its way, and when it arrives.
    under_way: VecDeque<(Instant, Vec<u8>)>,
    free: Instant,
}

impl Way {
    /// Waits a little for a datagram; gives it, and from where it is.
    fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let next = self.under_way.front().map(|(at, _)| at.saturating_duration_since(Instant::now()));
        let wait = next.unwrap_or(Duration::from_millis(100)).max(Duration::from_millis(1));
        self.from.set_read_timeout(Some(wait)).unwrap();
        self.from.recv_from(buffer).ok()
    }

    /// Takes a datagram, if it is not lost.
    fn take(&mut self, datagram: &[u8], narrow: bool) {
        let conditions = *self.conditions.lock();
        let now = Instant::now();
        // RTP and RTCP by their first byte (RFC 7983).
        let media = (128..192).contains(&datagram[0]);
        let mut lost = media && self.random.u8(..100) < conditions.loss_percent;
        let mut arrives = now;
        if let Some((rate, patience)) = conditions.carries.filter(|_| narrow) {
            self.free = self.free.max(now);
            lost |= self.free - now > patience;
            if !lost {
                self.free += Duration::from_secs_f64(datagram.len() as f64 / rate);
                arrives = self.free;
            }
        }
        if lost {
            self.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            self.under_way.push_back((arrives, datagram.to_vec()));
        }
    }

    /// What has arrived.
    fn arrived(&mut self) -> Option<Vec<u8>> {
        let (at, _) = self.under_way.front()?;
        if *at > Instant::now() { None } else { self.under_way.pop_front().map(|(_, data)| data) }
    }
}

impl Relay {
    /// Between one client and a server.
    pub fn start(server: SocketAddr, conditions: Conditions) -> Self {
        let (near, far) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        far.connect(server).unwrap();
        let (end, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let conditions = Arc::new(Mutex::new(conditions));
        let address = near.local_addr().unwrap();
        let client: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        for back in [false, true] {
            let (near, far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let (end, client) = (end.clone(), client.clone());
            let mut way = Way {
                from: if back { far.try_clone().unwrap() } else { near.try_clone().unwrap() },
                conditions: conditions.clone(),
                lost: lost.clone(),
                random: fastrand::Rng::with_seed(7 + u64::from(back)),
                under_way: VecDeque::new(),
                free: Instant::now(),
            };
            std::thread::spawn(move || {
                let mut buffer = vec![0; 2000];
                while !end.load(Ordering::Relaxed) {
                    if let Some((length, source)) = way.receive(&mut buffer).filter(|(length, _)| *length > 0)
                    {
                        way.take(&buffer[..length], back);
                        if !back {
                            *client.lock() = Some(source);
                        }
                    }
                    while let Some(data) = way.arrived() {
                        // Whoever is not there any more gets nothing.
                        let _ = if back {
                            client.lock().map_or(Ok(0), |to| near.send_to(&data, to))
                        } else {
                            far.send(&data)
                        };
                    }
                }
            });
        }
        Self { address, conditions, lost, end }
    }

    /// One that loses so many of a hundred.
    pub fn losing(server: SocketAddr, percent: u8) -> Self {
        Self::start(server, Conditions { loss_percent: percent, carries: None })
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// It is like this from now on.
    pub fn set(&self, conditions: Conditions) {
        *self.conditions.lock() = conditions;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}
