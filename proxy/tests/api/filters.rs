//! `GET /jobs` with filters.

use std::collections::HashSet;

use serde_json::{Value, json};
use tepal_tests::wait::eventually;

use crate::site::{SOON, Site, row};

/// All jobs of a listing, page by page, and the number of pages.
async fn all(site: &Site, query: &str) -> (Vec<Value>, usize) {
    let (mut jobs, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let answer = site.client.get(&format!("/jobs?{query}{cursor}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        pages += 1;
        let page = answer.json();
        jobs.extend(page["jobs"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (jobs, pages),
        }
    }
}

fn ids(jobs: &[Value]) -> Vec<&str> {
    jobs.iter().map(|job| job["job_id"].as_str().unwrap()).collect()
}

async fn submit(site: &Site, priority: &str) -> String {
    let answer = site.client.post_json("/predict", &json!({"data": row(), "priority": priority})).await;
    answer.json()["job_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn filters_can_be_combined() {
    let site = Site::start(&[("PARTITIONS", "3")]).await;
    let mut high = Vec::new();
    for _ in 0..10 {
        submit(&site, "low").await;
        high.insert(0, submit(&site, "high").await);
    }
    let (jobs, _) = all(&site, "priority=high").await;
    assert_eq!(ids(&jobs), high);
    let (jobs, pages) = all(&site, "priority=high&limit=3").await;
    assert_eq!(ids(&jobs), high);
    assert!(pages >= 4);

    let done: HashSet<String> =
        [site.complete_one().await, site.complete_one().await].map(|id| id.to_string()).into();
    let (jobs, _) = all(&site, "priority=high&status=completed").await;
    assert_eq!(ids(&jobs).into_iter().map(str::to_owned).collect::<HashSet<_>>(), done);
    assert_eq!(all(&site, "priority=low&status=completed").await.0, Vec::<Value>::new());
    assert_eq!(all(&site, "priority=normal").await.0, Vec::<Value>::new());
}

#[tokio::test]
async fn a_span_of_time_shows_exactly_its_jobs() {
    let site = Site::start(&[("PARTITIONS", "3")]).await;
    let mut times = HashSet::new();
    let mut count = 0;
    // Jobs of at least ten different milliseconds.
    while times.len() < 10 {
        let id = site.submit().await;
        times.insert(site.client.job(&id).await["created_at"].as_str().unwrap().to_owned());
        count += 1;
    }
    let (every, _) = all(&site, "").await;
    assert_eq!(every.len(), count);
    let mut times: Vec<String> = times.into_iter().collect();
    times.sort_unstable();
    for (after, before) in [(&times[2], &times[7]), (&times[0], &times[9]), (&times[4], &times[5])] {
        let expected: Vec<&str> = every
            .iter()
            .filter(|job| {
                let created = job["created_at"].as_str().unwrap();
                created > after.as_str() && created < before.as_str()
            })
            .map(|job| job["job_id"].as_str().unwrap())
            .collect();
        for limit in [1, 2, 50] {
            let query = format!("created_after={after}&created_before={before}&limit={limit}");
            assert_eq!(ids(&all(&site, &query).await.0), expected, "{query}");
        }
    }
    let last = &times[9];
    assert_eq!(all(&site, &format!("created_after={last}")).await.0, Vec::<Value>::new());
    assert_eq!(all(&site, "created_after=2999-01-01T00:00:00Z").await.0, Vec::<Value>::new());
    assert_eq!(all(&site, "created_before=1999-01-01T00:00:00Z").await.0, Vec::<Value>::new());
}

#[tokio::test]
async fn a_filtered_listing_misses_nothing_and_repeats_nothing_while_jobs_arrive() {
    let site = Site::start(&[("PARTITIONS", "2")]).await;
    let mut expected = Vec::new();
    for n in 0..60 {
        let id = submit(&site, if n % 3 == 0 { "high" } else { "low" }).await;
        if n % 3 == 0 {
            expected.insert(0, id);
        }
    }
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = site.client.get(&format!("/jobs?priority=high&limit=2{cursor}")).await.json();
        seen.extend(ids(page["jobs"].as_array().unwrap()).into_iter().map(str::to_owned));
        submit(&site, "high").await;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn the_work_of_a_page_does_not_grow_with_the_table() {
    let site = Site::start(&[]).await;
    let batch = json!(vec![json!({"data": row(), "priority": "low"}); 500]);
    for _ in 0..6 {
        assert_eq!(site.client.post_json("/predict/batch", &batch).await.status, 202);
    }
    let reads = || site.redis.calls("hmget");
    let before = reads();
    let page = site.client.get("/jobs?priority=high&limit=10").await.json();
    assert_eq!(page["jobs"], json!([]));
    assert!(page["next_cursor"].is_string(), "more may follow: {page}");
    assert!(reads() - before <= 1010, "{} jobs were read", reads() - before);
    // Going on leads to the end.
    eventually(SOON, "the end", || async { all(&site, "priority=high&limit=100").await.0.is_empty() }).await;
}
