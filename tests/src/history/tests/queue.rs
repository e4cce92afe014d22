//! Breaches of I6 to I10.

use super::*;
use Invariant::{I6, I7, I8, I9, I10};

#[test]
fn i6_nothing_is_left_in_the_streams() {
    let mut left = good();
    left.last.streams.insert("{q:0}:stream:low".to_owned(), StreamDump { length: 1, pending: 1 });
    left.breaks_only(I6);
}

#[test]
fn i6_terminal_jobs_have_a_ttl_and_open_ones_have_none() {
    let no_ttl = JobDump { ttl_ms: None, ..job("failed", &[]) };
    good().with_job("bad", no_ttl).breaks_only(I6);
    good().with_job("bad", job("pending", &[("input", "3")])).breaks(I6);
}

#[test]
fn i7_one_idempotency_key_is_one_job() {
    let other = good().and(submitted("other", 1, Some("key")));
    other.with_job("other", job("completed", &[("result", "2")])).breaks_only(I7);
}

#[test]
fn i8_a_refused_submit_leaves_nothing() {
    good().with_job("ghost", job("completed", &[("result", "14")])).breaks_only(I8);
    good().with_job("ghost", job("failed", &[])).with_input("ghost", "7.0").breaks_only(I8);
    good().with_job("nobody", job("completed", &[("result", "1000")])).breaks_only(I8);
    let mut stray = good().and(refused(7, Some("refused")));
    stray.last.idempotency_keys = 3;
    stray.breaks_only(I8);
}

#[test]
fn i9_an_unknown_submit_makes_one_job_at_most() {
    good().with_job("unseen too", job("completed", &[("result", "10")])).breaks_only(I9);
    let known_later = good().and(unknown(9, Some("key")));
    known_later.with_job("second", job("completed", &[("result", "18")])).breaks_only(I9);
    let repeated =
        good().and(unknown(6, Some("lost"))).with_job("one", job("completed", &[("result", "12")]));
    repeated.verdict().assert_holds();
    repeated.with_job("two", job("completed", &[("result", "12")])).breaks_only(I9);
}

#[test]
fn i9_jobs_are_matched_to_submits_as_well_as_possible() {
    // "any" could be either submit; the other job only the first one.
    let history = good().and(unknown(20, None)).and(unknown(21, None));
    let history = history
        .with_job("any", job("cancelled", &[]))
        .with_job("first", job("completed", &[("result", "40")]));

    history.verdict().assert_holds();
}

#[test]
fn i10_without_a_fault_nothing_is_repaired() {
    let calm = |mut history: History| {
        history.records.retain(|record| !matches!(record.event, Event::Fault { .. }));
        history.last.repairs = 0;
        history
    };
    calm(good()).breaks_only(I10); // "again" lost its lease.
    let fixed = || calm(good()).with_job("again", job("completed", &[("result", "4"), ("attempt", "2")]));
    fixed().verdict().assert_holds();
    let mut repaired = fixed();
    repaired.last.repairs = 1;
    repaired.breaks_only(I10);
}

#[test]
fn i9_a_job_is_run_again_no_more_often_than_asked() {
    let again = || job("completed", &[("result", "1"), ("retry_of", "bad")]);
    let asked = || good().and(Event::RequeueUnknown { of: "bad".to_owned() });
    asked().verdict().assert_holds();
    asked().with_job("new", again()).verdict().assert_holds();
    asked().with_job("new", again()).with_job("newer", again()).breaks_only(I9);
    good().with_job("new", again()).breaks_only(I9);
}
