//! Breaches of I1 to I5.

use super::*;
use Invariant::{I1, I2, I3, I4, I5};

#[test]
fn i1_an_accepted_job_may_not_vanish_or_stay_open() {
    good().without_job("bad").breaks_only(I1);
    let open = JobDump { ttl_ms: None, ..job("pending", &[]) };
    let stuck = good().and(submitted("stuck", 8, None)).with_job("stuck", open);
    assert_eq!(stuck.verdict().all.lost, 1);
    stuck.breaks_only(I1);
    good().and(Event::Observed { id: "done".to_owned(), status: 404, body: json!({}) }).breaks_only(I1);
}

#[test]
fn i1_a_job_may_not_have_two_outcomes() {
    let twice = good().and(settled("done", 2, Outcome::Completed));
    assert_eq!(twice.verdict().all.doubled, 1);
    twice.breaks(I1);
    good().and(settled("bad", 1, Outcome::Completed)).breaks_only(I1);
}

#[test]
fn i2_nothing_of_a_terminal_job_may_change() {
    good().and(observed("done", json!({"status": "completed", "result": 2, "attempts": 2}))).breaks_only(I2);
    good().and(observed("done", json!({"status": "pending"}))).breaks_only(I2);
    let mut changed = good();
    changed.earlier = vec![changed.last.clone()];
    changed.with_job("bad", job("failed", &[("error", "another")])).breaks_only(I2);
}

#[test]
fn i2_an_older_read_that_ends_late_is_no_change() {
    let mut overlapping = good().and(observed("done", json!({"status": "pending"})));
    overlapping.records.last_mut().unwrap().began_us = 1;

    overlapping.verdict().assert_holds();
}

#[test]
fn i3_a_result_must_be_right() {
    good().with_job("again", job("completed", &[("result", "5"), ("attempt", "2")])).breaks_only(I3);
    good().with_job("again", job("completed", &[("attempt", "2")])).breaks_only(I3);
    good().and(observed("again", json!({"status": "completed", "result": 6}))).breaks_only(I3);
}

#[test]
fn i3_only_the_last_grant_may_settle() {
    good()
        .with_job("again", job("completed", &[("result", "4"), ("attempt", "3"), ("lost", "1")]))
        .breaks_only(I3);
    good().and(started("again", 2)).breaks_only(I3);
    good().and(started("again", 3)).breaks_only(I3);
    good().with_job("done", job("completed", &[("result", "2"), ("attempt", "0")])).breaks(I3);
}

#[test]
fn i4_a_cancel_holds() {
    good().and(started("stopped", 1)).with_job("stopped", job("cancelled", &[])).breaks_only(I4);
    good().with_job("stopped", job("cancelled", &[("result", "8")])).breaks_only(I4);
    good().with_job("stopped", job("completed", &[("result", "8")])).breaks(I4);
    good().and(observed("stopped", json!({"status": "processing"}))).breaks(I4);
    good().and(settled("stopped", 1, Outcome::Completed)).breaks(I4);
    good().with_job("stopped", job("cancelled", &[("waited_ms", "9"), ("took_ms", "8")])).breaks_only(I4);
}

#[test]
fn i4_a_start_just_logged_late_is_no_breach() {
    let mut late = good().and(started("stopped", 1)).with_job("stopped", job("cancelled", &[]));
    let cancelled_us = 21_000_000;
    late.records.last_mut().unwrap().began_us = cancelled_us + 900_000;

    late.verdict().assert_holds();
}

#[test]
fn i5_failures_and_lost_leases_are_limited() {
    good().with_job("bad", job("failed", &[("attempt", "5")])).breaks(I5);
    good()
        .with_job("unseen", job("completed", &[("result", "10"), ("attempt", "5"), ("lost", "4")]))
        .breaks_only(I5);
    good().with_job("unseen", job("completed", &[("result", "10"), ("released", "7")])).breaks_only(I5);
    let released = [("result", "10"), ("attempt", "50"), ("released", "45"), ("lost", "3")];
    good().with_job("unseen", job("completed", &released)).verdict().assert_holds();
}
