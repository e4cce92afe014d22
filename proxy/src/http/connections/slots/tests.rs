use std::net::IpAddr;

use futures_util::FutureExt as _;

use super::*;

fn take(slots: &Arc<Slots>) -> Option<Arc<Slot>> {
    take_from(slots, 1)
}

fn take_from(slots: &Arc<Slots>, address: u8) -> Option<Arc<Slot>> {
    slots.take(Some(Client::of(IpAddr::from([192, 0, 2, address])))).now_or_never()
}

fn begins(slot: &Slot) -> bool {
    matches!(slot.begin(true), Begin::Now)
}

fn is_lost(slot: &Slot) -> bool {
    slot.lost().now_or_never().is_some()
}

fn answer(slot: &Arc<Slot>, kind: &str) -> Response {
    let mut answer = Response::new(Body::from("x"));
    answer.headers_mut().insert(CONTENT_TYPE, kind.parse().unwrap());
    Arc::clone(slot).hold(answer)
}

#[test]
fn the_one_that_waits_the_longest_makes_room() {
    let slots = Slots::new(2, 2, 0, ConnectionMetrics::noop());
    let (first, second) = (take(&slots).unwrap(), take(&slots).unwrap());
    // After its request, the first one has been idle for less time than the second.
    assert!(begins(&first));
    drop(answer(&first, "application/json"));
    let third = take(&slots).unwrap();
    assert!(is_lost(&second) && !is_lost(&first) && !is_lost(&third));
    assert!(!begins(&second), "its request must not be worked on");
    assert!(begins(&third));
    drop(second);
    assert_eq!(slots.open(), 2);
}

#[test]
fn a_request_keeps_its_slot_until_it_is_answered() {
    let slots = Slots::new(1, 1, 0, ConnectionMetrics::noop());
    let first = take(&slots).unwrap();
    assert!(begins(&first) && begins(&first));
    let body = answer(&first, "application/json");
    assert!(take(&slots).is_none());
    drop(body);
    assert!(take(&slots).is_some() && is_lost(&first));
    drop(first);
    assert_eq!(slots.open(), 0);
}

#[test]
fn streams_make_room_after_those_that_wait() {
    let slots = Slots::new(2, 2, 0, ConnectionMetrics::noop());
    let (stream, waiting) = (take(&slots).unwrap(), take(&slots).unwrap());
    assert!(begins(&stream));
    let body = answer(&stream, "text/event-stream");
    let third = take(&slots).unwrap();
    assert!(is_lost(&waiting) && !is_lost(&stream));
    assert!(begins(&third) && take(&slots).is_some());
    assert!(is_lost(&stream));
    drop((body, stream, waiting));
    assert_eq!(slots.open(), 1, "the third one is busy, the fourth is gone");
}

#[test]
fn a_connection_whose_answer_waits_for_the_rest_of_a_body_makes_room_first() {
    let slots = Slots::new(3, 3, 0, ConnectionMetrics::noop());
    let [waiting, draining, other] = [(); 3].map(|()| take(&slots).unwrap());
    assert!(begins(&draining));
    let permit = draining.drain().unwrap();
    permit.answered();
    assert_eq!(draining.waits(), None, "it waits for no request");
    assert!(draining.receives(1 << 30), "a body has another budget");
    assert!(take_from(&slots, 2).is_some());
    assert!(is_lost(&draining) && !is_lost(&waiting) && !is_lost(&other));
}

#[test]
fn a_body_that_is_discarded_beside_its_request_keeps_the_slot() {
    let slots = Slots::new(1, 1, 0, ConnectionMetrics::noop());
    let first = take(&slots).unwrap();
    assert!(begins(&first));
    drop(first.drain().unwrap());
    assert!(take(&slots).is_none());
}

#[test]
fn an_address_at_work_on_all_it_may_keeps_no_other_out() {
    let slots = Slots::new(4, 4, 0, ConnectionMetrics::noop());
    let all = [(); 4].map(|()| take(&slots).unwrap());
    assert_eq!(all.each_ref().map(|slot| begins(slot)), [true, true, false, false]);
    let other = take_from(&slots, 2).unwrap();
    assert!(begins(&other) && is_lost(&all[2]));
    let mut later = std::pin::pin!(all[3].begin_later());
    assert!(later.as_mut().now_or_never().is_none());
    drop(answer(&all[0], "application/json"));
    assert_eq!(later.now_or_never(), Some(true));
}

#[test]
fn connections_without_slots_are_closed_before_too_many_others_come() {
    let slots = Slots::new(1, 1, 0, ConnectionMetrics::noop());
    let mut all: Vec<_> = (0..=MANY_LEAVING).map(|_| take(&slots).unwrap()).collect();
    assert!(take(&slots).is_none());
    drop(all.remove(0));
    assert!(take(&slots).is_some());
}

#[test]
fn a_client_without_a_connection_does_not_wait_for_connections_of_others() {
    let slots = Slots::new(1, 1, 100, ConnectionMetrics::noop());
    let mut all: Vec<_> = (0..=MANY_LEAVING).map(|_| take(&slots).unwrap()).collect();
    assert!(take(&slots).is_none());
    all.extend((2..=u8::MAX).map_while(|address| take_from(&slots, address)));
    assert_eq!(all.len(), MANY_LEAVING + 100 + 1);
}

#[test]
fn an_aborted_request_frees_its_slot() {
    let slots = Slots::new(1, 1, 0, ConnectionMetrics::noop());
    let first = take(&slots).unwrap();
    assert!(begins(&first));
    drop(first);
    assert_eq!(slots.open(), 0);
}

#[test]
fn heads_of_requests_share_a_budget() {
    let slots = Slots::new(10_000, 10_000, 0, ConnectionMetrics::noop());
    let all: Vec<_> = (0..2000).map(|_| take(&slots).unwrap()).collect();
    assert!(all.iter().all(|slot| slot.receives(SMALL_HEAD)));
    let large = all.iter().filter(|slot| slot.receives(20 << 10)).count();
    assert_eq!(large, MOST_HEADS / (24 << 10), "the buffers for 28 KiB have 32 KiB");
    assert!(!all[1999].receives(20 << 10));
    assert!(begins(&all[0]) && all[0].receives(1 << 30), "a body has another budget");
    assert!(all[1999].receives(20 << 10));
}

/// Takes slots for one client, one after the other, and closes the connections that lose theirs, until it must wait.
fn take_until_it_waits(slots: &Arc<Slots>, address: u8, kept: &mut Vec<Arc<Slot>>) -> usize {
    let mut count = 0;
    while count < 1000
        && let Some(slot) = take_from(slots, address)
    {
        kept.push(slot);
        kept.retain(|slot| !is_lost(slot));
        count += 1;
    }
    count
}

#[tokio::test]
async fn connections_of_a_client_replace_each_other_only_now_and_then() {
    let (slots, mut kept) = (Slots::new(100, 100, 0, ConnectionMetrics::noop()), Vec::new());
    let replaced = take_until_it_waits(&slots, 1, &mut kept) - 100;
    assert!((32..100).contains(&replaced), "{replaced}");
    // Another client gets as many slots at once.
    assert!(take_until_it_waits(&slots, 2, &mut kept) >= 49);
    assert_eq!(kept.len(), 100);
    assert!(take_from(&slots, 3).is_some(), "a new client need not wait");
}

#[tokio::test]
async fn a_client_that_waits_gets_a_slot_in_its_turn() {
    let (slots, mut kept) = (Slots::new(10, 10, 0, ConnectionMetrics::noop()), Vec::new());
    let client = Some(Client::of(IpAddr::from([192, 0, 2, 1])));
    for _ in 0..200 {
        kept.push(slots.take(client).await);
        kept.retain(|slot| !is_lost(slot));
    }
    assert_eq!(kept.len(), 10);
}
