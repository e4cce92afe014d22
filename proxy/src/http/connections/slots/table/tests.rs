use std::net::IpAddr;

use futures_util::FutureExt as _;

use super::*;

/// What the table must know of a connection.
struct Connection {
    client: Option<Client>,
    number: usize,
    rank: Option<Rank>,
    lost: Arc<Notify>,
}

fn client(number: u8) -> Option<Client> {
    // Number 0 is a trusted proxy.
    (number > 0).then(|| Client::of(IpAddr::from([192, 0, 2, number])))
}

impl Connection {
    fn open(table: &mut Table, number: u8) -> Self {
        let (client, lost) = (client(number), Arc::default());
        let (number, rank) = table.enter(client, &lost);
        Self { client, number, rank: Some(rank), lost }
    }

    /// Whether its request is worked on.
    fn begin(&mut self, table: &mut Table) -> bool {
        let began = matches!(table.begin(self.number, self.rank.unwrap(), true), Begin::Now);
        self.rank = self.rank.filter(|_| !began);
        began
    }

    fn rest(&mut self, table: &mut Table, rest: Rest) {
        self.rank = Some(table.rest(self.number, self.rank, rest, &self.lost).unwrap());
    }

    fn is_lost(&self) -> bool {
        self.lost.notified().now_or_never().is_some()
    }
}

/// Numbers that look random and are always the same.
fn random() -> impl FnMut(usize) -> usize {
    let mut state = 7_u64;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    }
}

#[test]
fn an_address_with_many_slots_loses_one_before_an_address_with_few() {
    let mut table = Table::new(8, 8);
    let few: Vec<_> = (0..3).map(|_| Connection::open(&mut table, 1)).collect();
    let many: Vec<_> = (0..5).map(|_| Connection::open(&mut table, 2)).collect();
    // Newer ones, and younger at rest.
    assert_eq!([table.displace(), table.displace()], [Some(Rest::Waiting); 2]);
    assert_eq!(many.iter().map(Connection::is_lost).collect::<Vec<_>>(), [true, true, false, false, false]);
    assert!(!few.iter().any(Connection::is_lost));
    assert_eq!((table.open(), table.leaving()), (6, 2));
}

#[test]
fn of_one_address_those_that_drain_make_room_first_and_those_that_stream_last() {
    let mut table = Table::new(4, 4);
    let mut all: Vec<_> = (0..4).map(|_| Connection::open(&mut table, 1)).collect();
    for (connection, rest) in
        all.iter_mut().zip([Rest::Streaming, Rest::Draining, Rest::Waiting, Rest::Draining])
    {
        connection.rest(&mut table, rest);
    }
    let order = [(); 4].map(|()| table.displace().unwrap());
    assert_eq!(order, [Rest::Draining, Rest::Draining, Rest::Waiting, Rest::Streaming]);
    assert_eq!(table.displace(), None);
}

#[test]
fn no_address_has_more_requests_in_progress_than_there_are_slots_without_one() {
    let mut table = Table::new(10, 10);
    let mut all: Vec<_> = (0..8).map(|_| Connection::open(&mut table, 1)).collect();
    assert_eq!(all.iter_mut().filter_map(|one| one.begin(&mut table).then_some(())).count(), 5);
    let mut others = [(); 2].map(|()| Connection::open(&mut table, 2));
    assert!(others.iter_mut().all(|one| one.begin(&mut table)));
    assert!(!all[5].begin(&mut table), "three slots are left");
    let Begin::Later(turn) = table.begin(all[5].number, all[5].rank.unwrap(), true) else { panic!() };
    assert!(matches!(table.begin(all[6].number, all[6].rank.unwrap(), false), Begin::Now));
    assert!(turn.notified().now_or_never().is_none());
    all[0].rest(&mut table, Rest::Waiting);
    assert!(turn.notified().now_or_never().is_some(), "it has one slot less at work");
}

#[test]
fn connections_of_trusted_proxies_share_no_bound() {
    let mut table = Table::new(40, 40);
    let mut all: Vec<_> = (0..40).map(|_| Connection::open(&mut table, 0)).collect();
    assert!(all.iter().all(|one| table.drain(one.number)));
    assert!(all.iter_mut().all(|one| one.begin(&mut table)));
    assert_eq!(table.displace(), None);
}

#[test]
fn an_address_discards_so_many_bodies_at_a_time() {
    let mut table = Table::new(40, 40);
    let one = Connection::open(&mut table, 1);
    let other = Connection::open(&mut table, 2);
    assert_eq!((0..40).filter(|_| table.drain(one.number)).count(), MOST_DRAINING);
    assert!(table.drain(other.number));
    table.drained(one.number);
    assert!(table.drain(one.number) && !table.drain(one.number));
}

#[test]
fn whatever_happens_the_largest_holder_makes_room_and_nothing_is_forgotten() {
    let (mut table, mut random) = (Table::new(usize::MAX, usize::MAX), random());
    let (mut open, mut leaving): (Vec<Connection>, Vec<Connection>) = (Vec::new(), Vec::new());
    for _ in 0..10_000 {
        let index = random(open.len().max(1));
        match random(8) {
            _ if open.len() < 10 => open.push(Connection::open(&mut table, random(6) as u8)),
            0 | 1 => open.push(Connection::open(&mut table, random(6) as u8)),
            3 if open[index].rank.is_some() => assert!(open[index].begin(&mut table)),
            4 => open[index].rest(&mut table, [Rest::Draining, Rest::Waiting, Rest::Streaming][random(3)]),
            5 => {
                let gone = open.swap_remove(index);
                table.leave(gone.number, gone.rank);
            }
            6 => leaving.extend(displaced(&mut table, &mut open)),
            _ => {
                if let Some(gone) = leaving.pop() {
                    assert!(matches!(table.begin(gone.number, gone.rank.unwrap(), true), Begin::Lost));
                    assert_eq!(table.rest(gone.number, gone.rank, Rest::Waiting, &gone.lost), None);
                    table.leave(gone.number, gone.rank);
                }
            }
        }
        assert_eq!((table.open(), table.leaving()), (open.len(), leaving.len()));
    }
    assert!(table.last > 3000, "{}", table.last);
    open.into_iter().chain(leaving).for_each(|one| table.leave(one.number, one.rank));
    assert_eq!((table.open(), table.busy, table.leaving(), table.numbers.len()), (0, 0, 0, 0));
    assert!(table.single.is_empty() && table.crowds.is_empty());
    assert_eq!(table.free.len(), table.holders.len());
}

/// The connection that makes room, if one does, compared with what it should be.
fn displaced(table: &mut Table, open: &mut Vec<Connection>) -> Option<Connection> {
    let slots = |one: &Connection| {
        let same = open.iter().filter(|other| other.client == one.client).count();
        if one.client.is_some() { same } else { 1 }
    };
    let most = open.iter().filter(|one| one.rank.is_some()).map(slots).max();
    let rest = table.displace();
    let lost = open.iter().position(Connection::is_lost);
    assert_eq!((rest.is_some(), lost.is_some()), (most.is_some(), most.is_some()));
    let lost = &open[lost?];
    assert_eq!((slots(lost), lost.rank.map(|rank| rank.0)), (most?, rest));
    // Any address with as many slots may make room; those with a single one do it in turn.
    let is_rival = |one: &&Connection| slots(one) == 1 && most == Some(1) || one.client == lost.client;
    let first = open.iter().filter(is_rival).filter_map(|one| one.rank).min();
    assert_eq!(lost.rank, first);
    let index = open.iter().position(|one| one.rank == first)?;
    Some(open.swap_remove(index))
}
