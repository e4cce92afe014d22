//! Connections that break between a proxy and Redis, a worker and Redis, or a worker and its model server.

use std::time::Duration;

use tokio::time::sleep;

use super::rig::Rig;
use super::rng::Rng;
use crate::fault_proxy::{FaultHits, FaultProxy};
use crate::history::now_us;
use crate::wait::poll;

/// How long a fault waits for a reply that it can drop.
const WAITS: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Cut,
    Down,
    HalfOpen,
    Delay,
    Drip,
    DropReply,
    /// The reply is dropped, and then nothing comes through for a while: the sender cannot ask again soon.
    DropReplyThenDown,
}

const KINDS: [(u64, Kind); 7] = [
    (3, Kind::Cut),
    (2, Kind::Down),
    (2, Kind::HalfOpen),
    (2, Kind::Delay),
    (1, Kind::Drip),
    (4, Kind::DropReply),
    (3, Kind::DropReplyThenDown),
];

/// Breaks one way for a while.
pub(super) async fn inject(rig: &Rig, rng: &mut Rng) {
    let _calm = rig.stack.quiet.read().await;
    let mut links: Vec<(&str, &FaultProxy, Option<&'static str>)> = Vec::new();
    links.extend(rig.stack.proxies.iter().map(|node| ("proxy-redis", &node.link, None)));
    for node in &rig.stack.workers {
        links.push(("worker-redis", &node.link, None));
        links.extend(node.model.iter().map(|model| ("worker-model", &model.link, Some(model.kind.name()))));
    }
    let (place, link, model) = *rng.pick(&links);
    let kind = rng.weighted(&KINDS);
    rig.tally.note(&format!("begins: {place} {kind:?}"));
    let (before, began_us) = (link.hits(), now_us());
    let what = apply(kind, place, link, rng).await;
    link.pass();
    link.drop_no_replies();
    rig.tally.add_of(model, &format!("{place}: {what}"), began_us, touched(kind, before, link.hits()));
}

async fn apply(kind: Kind, place: &str, link: &FaultProxy, rng: &mut Rng) -> &'static str {
    match kind {
        Kind::Cut => {
            link.cut_all().await;
            "connections cut"
        }
        Kind::Down => {
            link.down().await;
            sleep(rng.millis(200..2_500)).await;
            "cut and refused"
        }
        Kind::HalfOpen => {
            link.half_open();
            sleep(rng.millis(300..3_000)).await;
            "half-open"
        }
        Kind::Delay => {
            link.delay(rng.millis(20..600));
            sleep(rng.millis(500..2_000)).await;
            "replies delayed"
        }
        Kind::Drip => {
            link.drip(200, Duration::from_millis(2));
            sleep(rng.millis(300..1_000)).await;
            "bytes dripped"
        }
        Kind::DropReply => {
            drop_replies(link, place, rng.within(1..4)).await;
            "reply dropped"
        }
        Kind::DropReplyThenDown => {
            drop_replies(link, place, 1).await;
            link.down().await;
            sleep(rng.millis(500..2_500)).await;
            "reply dropped, then refused"
        }
    }
}

/// Drops replies, those of submits where there are some, and waits until they came.
async fn drop_replies(link: &FaultProxy, place: &str, count: u64) {
    let before = link.hits().replies_dropped;
    if place == "proxy-redis" {
        // A submit is the only request of a proxy with an input in it.
        (0..count).for_each(|_| link.drop_reply_to("\r\ninput\r\n"));
    } else {
        link.drop_replies(count);
    }
    let _ = poll(WAITS, || async { link.hits().replies_dropped >= before + count }).await;
}

/// What a fault hit: connections, replies or pieces.
fn touched(kind: Kind, before: FaultHits, after: FaultHits) -> u64 {
    match kind {
        Kind::Cut | Kind::Down => after.cut - before.cut,
        Kind::HalfOpen => after.half_open - before.half_open,
        Kind::Delay => after.delayed - before.delayed,
        Kind::Drip => after.dripped - before.dripped,
        Kind::DropReply | Kind::DropReplyThenDown => after.replies_dropped - before.replies_dropped,
    }
}
