//! Cursors of `GET /jobs`: only their owner can use them, for the same listing, and they reveal nothing about others' jobs.

use std::{
    collections::BTreeSet,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use tepal_shared::{
    job::{JobId, NewJob},
    queue::intake::Submitted,
};
use tepal_tests::{
    http::{Answer, Method},
    process::Proxy,
    wait::eventually,
};

use crate::{
    expect::{UNAVAILABLE, invalid, unavailable},
    gateway::{Gateway, SOON, flower},
    keys::Keys,
};

const EXPECTED: &str = "must be the next_cursor of an earlier page of the same listing";
/// The owners of the keys that [`gateway`] makes.
const OWNERS: [&str; 2] = ["ann", "bob"];

/// A gateway with a key of Ann's, one of Bob's and one that sees everything.
async fn gateway() -> (Gateway, [String; 3]) {
    let keys = Keys::with("");
    let holders = ["--owner ann", "--owner bob", "--scope admin"].map(|flags| keys.add(flags));
    (keys.gateway(&[]).await, holders)
}

/// Stores a job of this owner's past the proxy.
async fn store(gateway: &Gateway, owner: &str) -> JobId {
    let id = JobId::new(0);
    let job = NewJob { owner: Some(owner.to_owned()), ..flower() };
    assert_eq!(gateway.store.intake.submit(id, job).await.unwrap(), Submitted::Accepted);
    id
}

async fn list(gateway: &Gateway, key: &str, query: &str) -> Answer {
    gateway.as_key(key, Method::GET, &format!("/jobs?{query}"), "").await
}

fn next_cursor(answer: &Answer) -> Option<String> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["next_cursor"].as_str().map(str::to_owned)
}

/// The cursor of a listing that has more than one page.
async fn cursor(gateway: &Gateway, key: &str, query: &str) -> String {
    next_cursor(&list(gateway, key, query).await).unwrap()
}

#[track_caller]
fn assert_refused(answer: &Answer) {
    invalid(&[("?cursor", "format", EXPECTED)]).assert(answer, "/jobs", &format!("cursor {EXPECTED}"));
}

/// The numbers that a cursor reveals.
fn numbers(cursor: &str) -> impl Iterator<Item = u64> {
    cursor.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok())
}

async fn next_millisecond() {
    let ms = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let now = ms();
    while ms() == now {
        tokio::task::yield_now().await;
    }
}

/// Bob's jobs surround Ann's. A page of a filter that matches nothing ends a thousand entries after its start, wherever
/// that is, and Bob can begin at each of his own jobs.
#[tokio::test]
async fn an_attacker_does_not_learn_when_another_submitted() {
    let (gateway, [_, bob, _]) = gateway().await;
    let mut of_ann = BTreeSet::new();
    for _ in 0..12 {
        next_millisecond().await;
        of_ann.insert(store(&gateway, "ann").await);
        next_millisecond().await;
        for _ in 0..3 {
            store(&gateway, "bob").await;
        }
    }
    for _ in 0..1000 {
        store(&gateway, "bob").await;
    }
    let places = gateway.store.views.log(None, 2000).await.unwrap().entries;
    let times = |is_wanted: &dyn Fn(JobId) -> bool| -> BTreeSet<u64> {
        places.iter().filter(|entry| is_wanted(entry.id)).map(|entry| entry.place.ms).collect()
    };
    let (ann, own) = (times(&|id| of_ann.contains(&id)), times(&|id| !of_ann.contains(&id)));
    let secret: BTreeSet<u64> = ann.difference(&own).copied().collect();
    assert!(secret.len() > 6, "their jobs are not of different times: {ann:?}");

    let (mut learned, mut start) = (BTreeSet::new(), String::new());
    for _ in 0..49 {
        let page = list(&gateway, &bob, &format!("status=failed{start}")).await;
        if page.status == 200 {
            learned.extend(next_cursor(&page).iter().flat_map(|cursor| numbers(cursor)));
        } else {
            assert_refused(&page);
        }
        let next = cursor(&gateway, &bob, &format!("limit=1{start}")).await;
        start = format!("&cursor={next}");
    }
    let found: Vec<_> = secret.intersection(&learned).collect();
    assert!(found.is_empty(), "{} of {} times of Ann's jobs: {found:?}", found.len(), secret.len());
}

#[tokio::test]
async fn the_last_page_is_the_last_whether_or_not_others_have_jobs() {
    let (gateway, [_, bob, admin]) = gateway().await;
    store(&gateway, "ann").await;
    let own = store(&gateway, "bob").await;
    store(&gateway, "ann").await;
    for query in ["limit=1", "limit=1&status=pending", "limit=1&priority=normal"] {
        let page = list(&gateway, &bob, query).await;
        assert_eq!(next_cursor(&page), None, "{query}");
        assert_eq!(page.json()["jobs"][0]["job_id"], own.to_string());
    }
    cursor(&gateway, &admin, "limit=1").await;
}

/// If a short page always ended after the same number of entries, moving its start would show where others' entries are.
#[tokio::test]
async fn where_a_short_page_ends_differs_from_one_time_to_the_next() {
    let (gateway, [_, bob, _]) = gateway().await;
    store(&gateway, "bob").await;
    for _ in 0..1500 {
        store(&gateway, "ann").await;
    }
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let page: Value = list(&gateway, &bob, "limit=1").await.json();
        seen.insert(page["jobs"].as_array().unwrap().len());
    }
    assert_eq!(seen, [0, 1].into());
}

#[tokio::test]
async fn a_cursor_works_for_the_listing_that_it_came_from_and_for_no_other() {
    let (gateway, [ann, bob, admin]) = gateway().await;
    for owner in OWNERS.iter().cycle().take(6) {
        store(&gateway, owner).await;
    }
    let query = "status=pending&created_after=2026-01-01T00:00:00Z";
    let given = cursor(&gateway, &ann, &format!("{query}&limit=1")).await;
    // The size of a page is no part of the listing.
    let next = list(&gateway, &ann, &format!("{query}&limit=2&cursor={given}")).await;
    assert_eq!(next.json()["jobs"].as_array().map(Vec::len), Some(2), "{}", next.text());

    for key in [&bob, &admin] {
        assert_refused(&list(&gateway, key, &format!("{query}&cursor={given}")).await);
    }
    for other in [
        "",
        "status=pending",
        "status=failed&created_after=2026-01-01T00:00:00Z",
        "status=pending&created_after=2026-01-01T00:00:00.001Z",
        "status=pending&created_before=2026-01-01T00:00:00Z",
        "status=pending&created_after=2026-01-01T00:00:00Z&priority=high",
    ] {
        assert_refused(&list(&gateway, &ann, &format!("{other}&cursor={given}")).await);
    }
}

#[tokio::test]
async fn a_cursor_that_was_altered_or_made_up_is_refused() {
    let (gateway, [_, bob, _]) = gateway().await;
    for _ in 0..2 {
        store(&gateway, "bob").await;
    }
    let given = cursor(&gateway, &bob, "limit=1").await;
    let mut altered: Vec<String> = (0..given.len())
        .map(|index| {
            let mut letters = given.clone().into_bytes();
            letters[index] = if letters[index] == b'A' { b'B' } else { b'A' };
            String::from_utf8(letters).unwrap()
        })
        .collect();
    altered.extend([format!("{given}AAAA"), given[4..].to_owned(), format!("{given}=="), "A".repeat(60)]);
    // As cursors were before they were sealed.
    altered.extend(["", "0-0-0", "1795629600000-0-0", "%ff", "~"].map(str::to_owned));
    for cursor in altered {
        assert_refused(&list(&gateway, &bob, &format!("limit=1&cursor={cursor}")).await);
    }
    assert_ne!(cursor(&gateway, &bob, "limit=1").await, given, "sealed with another nonce each time");
}

#[tokio::test]
async fn every_proxy_opens_a_cursor_until_the_secret_is_lost() {
    let keys = Keys::with("");
    let bob = keys.add("--owner bob");
    let gateway = keys.gateway(&[]).await;
    for _ in 0..3 {
        store(&gateway, "bob").await;
    }
    let given = cursor(&gateway, &bob, "limit=1").await;
    let other =
        Proxy::start(&gateway.redis.proxy_url(), &[("API_KEYS_FILE", keys.path().to_str().unwrap())]).await;
    let path = format!("/jobs?limit=1&cursor={given}");
    let get = async || other.client().request(Method::GET, &path, &[("x-api-key", &bob)], "").await;
    let opened = async || {
        let answer = get().await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    };
    eventually(SOON, "the other proxy to open the cursor", opened).await;

    gateway.redis.cli(&["FLUSHALL"]);
    let refused = async || {
        let answers = [get().await, list(&gateway, &bob, &path[6..]).await];
        if answers.iter().all(|answer| answer.status == 422) { Ok(()) } else { Err(answers[0].text()) }
    };
    eventually(SOON, "both proxies to refuse the cursor", refused).await;
    for _ in 0..3 {
        store(&gateway, "bob").await;
    }
    let given = cursor(&gateway, &bob, "limit=1").await;
    assert_eq!(list(&gateway, &bob, &format!("limit=1&cursor={given}")).await.status, 200);
}

#[tokio::test]
async fn the_secret_is_made_once_and_shown_to_nobody() {
    let (gateway, [ann, bob, _]) = gateway().await;
    let name = "{predict_queue:0}:secret";
    let made = async || if gateway.redis.cli(&["STRLEN", name]) == "32" { Ok(()) } else { Err("no secret") };
    eventually(SOON, "the secret to be made", made).await;
    // In letters, so that it is found wherever it is shown.
    let canary = "canary-0123456789-0123456789-abc";
    gateway.redis.cli(&["SET", name, canary]);
    let other = Proxy::start(&gateway.redis.proxy_url(), &[("LOG_LEVEL", "trace")]).await;
    for _ in 0..3 {
        store(&gateway, "ann").await;
    }
    let get = async |path: &str| other.client().get(path).await;
    eventually(SOON, "a page with a cursor", async || get("/jobs?limit=1").await.status == 200).await;
    let mut shown = String::new();
    for path in ["/jobs?limit=1", "/metrics", "/health", "/metadata", "/readyz", "/openapi.json"] {
        shown += &get(path).await.text();
    }
    list(&gateway, &ann, "limit=1").await;
    list(&gateway, &bob, "limit=1&cursor=0-0-0").await;
    for log in [other.logs(), gateway.proxy.logs()] {
        shown += &log.lines().join("\n");
    }
    assert!(!shown.contains(&canary[..20]));
    assert_eq!(gateway.redis.cli(&["GET", name]), canary, "an old secret is kept");
}

#[tokio::test]
async fn cursors_work_as_soon_as_redis_is_there() {
    let (gateway, [_, bob, _]) = gateway().await;
    for _ in 0..2 {
        store(&gateway, "bob").await;
    }
    let given = cursor(&gateway, &bob, "limit=1").await;
    gateway.redis.kill9();
    let query = format!("limit=1&cursor={given}");
    let answer = list(&gateway, &bob, &query).await;
    unavailable().assert(&answer, "/jobs", UNAVAILABLE);
    gateway.redis.restart().await;
    let answered = async || {
        let status = list(&gateway, &bob, &query).await.status;
        if [200, 422].contains(&status) { Ok(()) } else { Err(status.to_string()) }
    };
    eventually(SOON, "the listing to be answered", answered).await;
}

/// The price of a page is in the RateLimit header.
#[tokio::test]
async fn what_a_page_costs_does_not_depend_on_the_jobs_of_others() {
    let keys = Keys::with("");
    let bob = keys.add("--owner bob --requests-per-minute 100");
    let gateway = keys.gateway(&[]).await;
    let costs = async |gateway: &Gateway| {
        let before = remaining(&gateway.as_key(&bob, Method::GET, "/job/none", "").await);
        before - remaining(&list(gateway, &bob, "limit=1").await)
    };
    // A page that scanned nothing pays for a thousand entries.
    assert_eq!(costs(&gateway).await, 2);
    for _ in 0..1_000 {
        store(&gateway, "ann").await;
    }
    assert_eq!(costs(&gateway).await, 2);
}

pub(crate) fn remaining(answer: &Answer) -> u32 {
    let header = answer.header("ratelimit").unwrap_or_else(|| panic!("{}", answer.text()));
    let rest = header.split("r=").nth(1).and_then(|rest| rest.split(';').next());
    rest.and_then(|rest| rest.parse().ok()).unwrap_or_else(|| panic!("{header}"))
}
