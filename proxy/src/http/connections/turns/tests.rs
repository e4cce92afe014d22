use std::sync::atomic::AtomicBool;

use tokio::sync::Notify;

use super::*;

fn client(number: u8) -> Option<Client> {
    Some(Client::of(std::net::IpAddr::from([10, 0, 0, number])))
}

/// Waits until no task can go on.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_with_many_connections_delays_no_other() {
    let (turns, begun) = (Turns::new(Handle::current()), Arc::new(AtomicUsize::new(0)));
    for _ in 0..1000 {
        let begun = Arc::clone(&begun);
        turns.spawn(client(1), async move {
            begun.fetch_add(1, Ordering::Relaxed);
        });
    }
    let (before, served) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let note = (Arc::clone(&begun), Arc::clone(&before), Arc::clone(&served));
    turns.spawn(client(2), async move {
        note.1.store(note.0.load(Ordering::Relaxed), Ordering::Relaxed);
        note.2.notify_one();
    });
    served.notified().await;
    assert!(before.load(Ordering::Relaxed) <= 2 * IN_A_TURN, "{before:?}");
    while begun.load(Ordering::Relaxed) < 1000 {
        tokio::task::yield_now().await;
    }
    settle().await;
    assert!(turns.clients().with_lanes == 0);
}

#[tokio::test]
async fn a_panic_ends_only_its_own_connection() {
    let (turns, go, is_served) =
        (Turns::new(Handle::current()), Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let (wait, note) = (Arc::clone(&go), Arc::clone(&is_served));
    turns.spawn(client(1), async move {
        wait.notified().await;
        note.store(true, Ordering::Relaxed);
    });
    turns.spawn(client(1), async { std::panic::resume_unwind(Box::new("a defect")) });
    settle().await;
    go.notify_one();
    settle().await;
    assert!(is_served.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_client_that_comes_back_is_served() {
    let turns = Turns::new(Handle::current());
    for _ in 0..3 {
        let served = Arc::new(Notify::new());
        let note = Arc::clone(&served);
        turns.spawn(client(1), async move { note.notify_one() });
        served.notified().await;
        settle().await;
        assert!(turns.clients().with_lanes == 0);
    }
}

#[tokio::test]
async fn a_lane_that_does_more_than_its_share_moves_to_the_busy_threads_and_back() {
    let busy = BusyThreads::start().unwrap();
    let turns = Turns::new(busy.handle());
    let is_busy = || std::thread::current().name().is_some_and(|name| name.starts_with("busy"));
    let (sender, mut places) = tokio::sync::mpsc::unbounded_channel();
    turns.spawn(client(2), std::future::pending());
    turns.spawn(client(1), async move {
        for _ in 0..2 {
            for _ in 0..100 {
                sender.send(is_busy()).unwrap();
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    });
    let mut seen = Vec::new();
    while let Some(place) = places.recv().await {
        seen.push(place);
    }
    assert!(!seen[0] && seen[99], "{seen:?}");
    assert!(seen[100..].iter().any(|place| !place), "{seen:?}");
}
