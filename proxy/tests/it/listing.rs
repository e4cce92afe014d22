//! `GET /jobs`: pages, filters and cursors.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value, json};
use tepal_shared::{
    job::Priority,
    queue::{Policy, work::Settlement},
};
use tepal_tests::wait::eventually;

use crate::{
    expect::{assert_json, invalid},
    gateway::{Gateway, SETOSA, SOON, accepted, model},
    store::Store,
};

/// The ids of a page.
fn ids(page: &Value) -> Vec<String> {
    page["jobs"].as_array().unwrap().iter().map(|job| job["job_id"].as_str().unwrap().to_owned()).collect()
}

/// All pages from the newest job on, `before_next` being called between two of them.
async fn pages(gateway: &Gateway, query: &str, before_next: impl AsyncFn()) -> Vec<Vec<String>> {
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = gateway.get(&format!("/jobs?{query}{cursor}")).await;
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.json();
        pages.push(ids(&page));
        let Some(next) = page["next_cursor"].as_str() else { return pages };
        cursor = format!("&cursor={next}");
        before_next().await;
    }
}

#[tokio::test]
async fn no_jobs() {
    let gateway = Gateway::start().await;
    assert_json(&gateway.get("/jobs").await, 200, &[], &json!({"jobs": []}));
}

#[tokio::test]
async fn jobs_are_listed_newest_first_and_without_results() {
    let gateway = Gateway::start().await;
    let (old, failed) = (gateway.completed().await, gateway.failed().await);
    let new = gateway.store_job(Priority::High).await;
    let job = async |id| {
        let mut job = gateway.get(&format!("/job/{id}")).await.json();
        job.as_object_mut().unwrap().shift_remove("result");
        job
    };
    let expected = json!({"jobs": [job(new).await, job(failed).await, job(old).await]});
    assert_eq!(expected["jobs"][0]["priority"], "high");
    assert_json(&gateway.get("/jobs").await, 200, &[], &expected);
}

#[tokio::test]
async fn a_job_that_has_missed_its_deadline_is_listed_as_failed() {
    let gateway = Gateway::start().await;
    let body = r#"{"data": [[5.1, 3.5, 1.4, 0.2]], "max_queue_seconds": 0.05}"#;
    let late = accepted(&gateway.predict(body).await).to_string();
    let waiting = gateway.submit().await.to_string();
    // No request reads the job itself, which would end it.
    let failed = async || {
        let page = gateway.get("/jobs?status=failed").await.json();
        if ids(&page) == [late.as_str()] { Ok(()) } else { Err(page.to_string()) }
    };
    eventually(SOON, "the job to be listed as failed", failed).await;
    let all = gateway.get("/jobs").await.json();
    assert_eq!(all["jobs"][1], gateway.get(&format!("/job/{late}")).await.json());
    assert_eq!(all["jobs"][1]["error_code"], "queue_timeout");
    assert_eq!(ids(&gateway.get("/jobs?status=pending").await.json()), [waiting]);
}

#[tokio::test]
async fn a_page_says_where_the_next_one_begins() {
    let gateway = Gateway::start().await;
    let old = gateway.submit().await;
    let new = gateway.submit().await;
    let (new_job, old_job) =
        (gateway.get(&format!("/job/{new}")).await, gateway.get(&format!("/job/{old}")).await);

    let first = gateway.get("/jobs?limit=1").await;
    let cursor = first.json()["next_cursor"].as_str().unwrap().to_owned();
    assert_json(&first, 200, &[], &json!({"jobs": [new_job.json()], "next_cursor": cursor}));
    let second = gateway.get(&format!("/jobs?limit=1&cursor={cursor}")).await;
    assert_json(&second, 200, &[], &json!({"jobs": [old_job.json()]}));
}

#[tokio::test]
async fn paging_shows_each_job_once_although_new_ones_arrive() {
    let gateway = Gateway::start().await;
    let mut expected = Vec::new();
    for _ in 0..25 {
        expected.insert(0, gateway.submit().await.to_string());
    }
    let listed = pages(&gateway, "limit=7", async || {
        for _ in 0..10 {
            gateway.store_job(Priority::Normal).await;
        }
    });
    let listed = listed.await;
    assert_eq!(listed.iter().map(Vec::len).collect::<Vec<_>>(), [7, 7, 7, 4]);
    assert_eq!(listed.concat(), expected);
}

#[tokio::test]
async fn paging_goes_over_all_partitions_in_order() {
    let gateway = Gateway::with(&[("PARTITIONS", "4")]).await;
    let mut expected = Vec::new();
    for _ in 0..30 {
        expected.push(gateway.submit().await);
    }
    let listed = pages(&gateway, "limit=4", async || {
        gateway.submit().await;
    });
    let listed = listed.await.concat();
    // Jobs of one millisecond in different partitions have no order among them, so only times must fall.
    let log = log_times(&gateway).await;
    let times: Vec<u64> = listed.iter().map(|id| log[id]).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    let sorted = |mut ids: Vec<String>| {
        ids.sort_unstable();
        ids
    };
    assert_eq!(sorted(listed), sorted(expected.iter().map(ToString::to_string).collect()));
}

/// When each job was accepted, by the logs of four partitions.
async fn log_times(gateway: &Gateway) -> HashMap<String, u64> {
    let policy = Policy { partitions: 4, ..Policy::default() };
    let store = Store::new(gateway.store.queue.redis().clone(), gateway.store.queue.keys().clone(), policy);
    let entries = store.views.log(None, 1000).await.unwrap().entries;
    entries.into_iter().map(|entry| (entry.id.to_string(), entry.place.ms)).collect()
}

#[tokio::test]
async fn a_filter_shows_jobs_in_one_state() {
    let gateway = Gateway::start().await;
    let (completed, failed) = (gateway.completed().await, gateway.failed().await);
    let cancelled = gateway.submit().await;
    gateway.delete(&format!("/job/{cancelled}")).await;
    let processing = gateway.submit().await;
    let attempt = gateway.take_one().await;
    let pending = gateway.submit().await;
    for (status, id) in [
        ("completed", completed),
        ("failed", failed),
        ("cancelled", cancelled),
        ("processing", processing),
        ("pending", pending),
    ] {
        let page = gateway.get(&format!("/jobs?status={status}")).await.json();
        assert_eq!(ids(&page), [id.to_string()], "{status}");
        assert_eq!(page["jobs"][0]["status"], status);
    }
    gateway.settle(&attempt, Settlement::Complete(SETOSA.to_owned())).await;
    let page = gateway.get("/jobs?status=completed").await.json();
    assert_eq!(ids(&page), [processing.to_string(), completed.to_string()]);
}

#[tokio::test]
async fn a_rare_state_is_found_however_many_jobs_are_newer() {
    let gateway = Gateway::start().await;
    let rare = gateway.completed().await;
    for _ in 0..1100 {
        gateway.store_job(Priority::Normal).await;
    }
    // A page scans at most 1000 entries.
    let listed = pages(&gateway, "status=completed&limit=2", async || {}).await;
    assert!(listed.len() > 1, "one page does not look at everything");
    assert_eq!(listed.concat(), [rare.to_string()]);
}

#[tokio::test]
async fn a_job_that_has_expired_is_not_listed() {
    let gateway = Gateway::start().await;
    let (old, new) = (gateway.completed().await, gateway.submit().await);
    gateway.redis.cli(&["DEL", &gateway.store.queue.keys().job(old)]);
    assert_eq!(ids(&gateway.get("/jobs").await.json()), [new.to_string()]);
}

#[tokio::test]
async fn parameters_that_cannot_be_used() {
    let gateway = Gateway::start().await;
    let number = "must be a whole number from 1 to 1000";
    for (query, place, code, detail) in [
        ("limit=0", "?limit", "out_of_range", number),
        ("limit=1001", "?limit", "out_of_range", number),
        ("limit=ten", "?limit", "out_of_range", number),
        (
            "status=done",
            "?status",
            "unknown_value",
            "must be one of pending, processing, completed, failed, cancelled",
        ),
        ("cursor=1-2", "?cursor", "format", "must be the next_cursor of an earlier page of the same listing"),
        (
            "order=up",
            "?order",
            "unknown_parameter",
            "is not a parameter of this request; known are status, priority, model, created_after, created_before, limit and cursor",
        ),
        ("limit=1&limit=2", "?limit", "repeated", "must be given only once"),
    ] {
        let answer = gateway.get(&format!("/jobs?{query}")).await;
        let expected = invalid(&[(place, code, detail)]);
        expected.assert(&answer, "/jobs", &format!("{} {detail}", &place[1..]));
    }
}

#[tokio::test]
async fn jobs_that_came_after_the_clock_was_ahead_have_the_right_time_and_are_found_by_it() {
    let gateway = Gateway::start().await;
    let first = gateway.submit().await;
    // While the clock is a day ahead, a job comes and goes. Ids never decrease, so they stay ahead.
    let created_at = async |id| gateway.store.views.job(id).await.unwrap().unwrap().created_at_ms;
    let tomorrow = format!("{}-0", created_at(first).await + 86_400_000);
    let keys = gateway.store.queue.keys();
    for key in [keys.log(0), keys.streams(0, model())[1].clone()] {
        gateway.redis.cli(&["XADD", &key, &tomorrow, "id", "x"]);
        gateway.redis.cli(&["XDEL", &key, &tomorrow]);
    }

    let second = gateway.submit().await;
    let times = [created_at(first).await, created_at(second).await];
    assert!((times[0]..times[0] + 60_000).contains(&times[1]), "{times:?}");
    let listed = async |query: &str, ms: u64| {
        let time = humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + Duration::from_millis(ms));
        ids(&gateway.get(&format!("/jobs?{query}={time}")).await.json())
    };
    let both = [second.to_string(), first.to_string()];
    assert_eq!(listed("created_before", times[1] + 1).await, both);
    assert_eq!(listed("created_before", times[0]).await, [""; 0]);
    assert_eq!(listed("created_after", times[0] - 1).await, both);
    assert_eq!(listed("created_after", times[1]).await, [""; 0]);
}
