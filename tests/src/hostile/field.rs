//! The surroundings of an attack: its target, addresses and time; and the code that many attacks share.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::tally::Tally;
use super::wire::{Answer, Wire, connect};

/// Addresses of a distributed attack.
const MANY: u32 = 20;
/// Addresses of each of many attacks at once.
const FEW: u32 = 4;
/// How long an attacker waits after it has used up its limit.
const PAUSE: Duration = Duration::from_secs(1);
/// How long it waits after it could not connect.
const RECONNECT: Duration = Duration::from_millis(100);

/// Jobs that attackers know.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Seeds {
    /// Small completed jobs.
    pub(super) small: Vec<String>,
    /// Completed jobs with results of 100 KB.
    pub(super) large: Vec<String>,
    /// A large job that does not end in the first half of the time.
    pub(super) held: String,
}

/// The orders of an attacker's process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Orders {
    pub(super) attack: String,
    pub(super) target: SocketAddr,
    /// The port for gRPC.
    pub(super) grpc: SocketAddr,
    pub(super) seconds: f64,
    /// `MAX_BODY_BYTES`.
    pub(super) largest_body: usize,
    pub(super) seeds: Seeds,
}

/// An attack's surroundings.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) target: SocketAddr,
    pub(super) grpc: SocketAddr,
    pub(super) addresses: Vec<Ipv4Addr>,
    pub(super) until: Instant,
    pub(super) largest_body: usize,
    pub(super) seeds: Arc<Seeds>,
    pub(super) tally: Arc<Tally>,
}

/// Bytes that are sent again and again.
#[derive(Clone, Debug)]
pub(super) struct Volley {
    pub(super) bytes: Arc<Vec<u8>>,
    /// Requests in `bytes`.
    pub(super) requests: usize,
    /// The least number of requests that each counts as; 0 if they are not counted.
    pub(super) cost: u32,
    /// Whether to continue after the limit is used up.
    pub(super) is_relentless: bool,
}

impl Volley {
    /// One request that counts as one.
    pub(super) fn one(bytes: Vec<u8>) -> Self {
        Self { bytes: Arc::new(bytes), requests: 1, cost: 1, is_relentless: false }
    }

    pub(super) fn costing(self, cost: u32) -> Self {
        Self { cost, ..self }
    }

    /// This many of them at once.
    pub(super) fn pipelined(self, requests: usize) -> Self {
        let bytes = Arc::new(self.bytes.repeat(requests));
        Self { bytes, requests, is_relentless: true, ..self }
    }
}

impl Field {
    pub(super) fn new(orders: &Orders, tally: Arc<Tally>) -> Self {
        Self {
            target: orders.target,
            grpc: orders.grpc,
            addresses: (0..MANY).map(|number| Ipv4Addr::from(0x7F01_0001 + number)).collect(),
            until: Instant::now() + Duration::from_secs_f64(orders.seconds),
            largest_body: orders.largest_body,
            seeds: Arc::new(orders.seeds.clone()),
            tally,
        }
    }

    /// The same field with one address.
    pub(super) fn alone(&self) -> Self {
        Self { addresses: self.addresses.iter().take(1).copied().collect(), ..self.clone() }
    }

    /// The same field with a few addresses that belong to this number only.
    pub(super) fn elsewhere(&self, number: usize) -> Self {
        let network = 0x7F02_0001 + (number << 8) as u32;
        Self { addresses: (0..FEW).map(|number| Ipv4Addr::from(network + number)).collect(), ..self.clone() }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Does `work` from each address, this many times at once, until it ends or the time is over.
    pub(super) async fn each_address<W>(&self, times: usize, work: impl Fn(Self, Ipv4Addr) -> W)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let mut all = JoinSet::new();
        for from in self.addresses.iter().flat_map(|from| std::iter::repeat_n(*from, times)) {
            let (until, work) = (self.until, work(self.clone(), from));
            all.spawn(async move {
                let _ = timeout_at(until, work).await;
            });
        }
        while let Some(done) = all.join_next().await {
            done.expect("an attacker does not panic");
        }
    }

    /// Sends a volley again and again over this many connections from each address.
    pub(super) async fn hammer(&self, connections: usize, volley: &Volley) {
        self.each_address(connections, |field, from| field.repeat(from, volley.clone())).await;
    }

    async fn repeat(self, from: Ipv4Addr, volley: Volley) {
        while !self.is_over() {
            let Some(mut wire) = self.open(from).await else { continue };
            while self.send(&mut wire, from, &volley).await {}
        }
    }

    /// Opens a connection; `None`, after a pause, if that fails.
    pub(super) async fn open(&self, from: Ipv4Addr) -> Option<Wire> {
        self.connect(from, self.target).await.map(Wire::new)
    }

    /// Opens a connection to the port for gRPC; `None`, after a pause, if that fails.
    pub(super) async fn open_grpc(&self, from: Ipv4Addr) -> Option<TcpStream> {
        self.connect(from, self.grpc).await
    }

    async fn connect(&self, from: Ipv4Addr, target: SocketAddr) -> Option<TcpStream> {
        match connect(from, target).await {
            Ok(stream) => Some(stream),
            Err(_) => {
                self.tally.note("not connected");
                sleep(RECONNECT).await;
                None
            }
        }
    }

    /// Sends a volley and counts the answers. Returns whether the connection can be used again.
    pub(super) async fn send(&self, wire: &mut Wire, from: Ipv4Addr, volley: &Volley) -> bool {
        let (sent, mut is_limited) = (Instant::now(), false);
        self.tally.sent(volley.bytes.len());
        let count = |answer: Answer| {
            is_limited |= answer.status == 429;
            self.tally.answered(from, sent.into_std(), volley.cost, &answer);
        };
        let exchanged = wire.exchange(&volley.bytes, volley.requests, count).await;
        if exchanged.is_err() {
            self.tally.note("connection closed");
        }
        if is_limited && !volley.is_relentless {
            sleep(PAUSE).await;
        }
        exchanged.is_ok()
    }

    /// Opens a connection for each volley, never reads from it, and keeps all connections open until the end.
    pub(super) async fn never_read(&self, connections: usize, volley: &Volley) {
        self.each_address(connections, |field, from| {
            let volley = volley.clone();
            async move {
                let Some(mut wire) = field.open(from).await else { return };
                field.tally.sent(volley.bytes.len());
                field.tally.note("sent, never read");
                // What the server does not take yet is sent when it does.
                let _ = wire.send(&volley.bytes).await;
                std::future::pending::<()>().await;
                drop(wire);
            }
        })
        .await;
    }

    /// Sends `start`, then a byte of `rest` now and then, and begins again when the server ends it.
    pub(super) async fn trickle(&self, connections: usize, start: &[u8], every: Duration) {
        self.each_address(connections, |field, from| {
            let start = start.to_vec();
            async move {
                while !field.is_over() {
                    let Some(mut wire) = field.open(from).await else { continue };
                    field.trickle_once(&mut wire, from, &start, every).await;
                }
            }
        })
        .await;
    }

    async fn trickle_once(&self, wire: &mut Wire, from: Ipv4Addr, start: &[u8], every: Duration) {
        let sent = Instant::now();
        self.tally.note("begun");
        self.tally.sent(start.len());
        if wire.send(start).await.is_err() {
            return self.tally.note("connection closed");
        }
        loop {
            tokio::select! {
                answer = wire.answer() => {
                    match answer {
                        Ok(answer) => self.tally.answered(from, sent.into_std(), 1, &answer),
                        Err(_) => self.tally.note("connection closed"),
                    }
                    return;
                }
                () = sleep(every) => {}
            }
            if wire.send(b" ").await.is_err() {
                return self.tally.note("connection closed");
            }
            self.tally.sent(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field() -> Field {
        let orders = Orders {
            attack: String::new(),
            target: ([127, 0, 0, 1], 1).into(),
            grpc: ([127, 0, 0, 1], 2).into(),
            seconds: 0.0,
            largest_body: 0,
            seeds: Seeds::default(),
        };
        Field::new(&orders, Arc::new(Tally::new()))
    }

    #[test]
    fn fields_of_other_numbers_have_no_address_in_common() {
        let field = field();
        assert_eq!(field.alone().addresses, [Ipv4Addr::new(127, 1, 0, 1)]);
        let (one, other) = (field.elsewhere(0).addresses, field.elsewhere(1).addresses);
        let mut all = [one, other, field.addresses].concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), (MANY + 2 * FEW) as usize);
    }

    #[test]
    fn a_pipeline_repeats_the_request() {
        let volley = Volley::one(b"ab".to_vec()).costing(3).pipelined(3);
        assert_eq!((volley.bytes.as_slice(), volley.requests, volley.cost), (&b"ababab"[..], 3, 3));
    }
}
