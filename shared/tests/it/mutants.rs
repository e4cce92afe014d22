//! Proof that each guard in the Lua scripts is needed and watched: with the guard changed as the table says, the
//! named behaviour fails. A row whose text is no longer in its file fails, too.

use std::{future::Future, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;
use tokio::time::timeout;

use crate::{
    altered::{Alteration, Altered},
    clock, deadlines, delivery, ends, endurance, giving_back, inputs, leases, owners,
    queue::{Queue, SOON},
    quota, recount, repairs, submit, together, transitions, upkeep,
};

/// Each row: the mutant's name; file, text, changed text; the behaviour that fails.
macro_rules! mutants {
    ($($name:ident: $file:literal $cut:literal => $put:literal, $killer:path;)*) => {
        $(#[tokio::test]
        async fn $name() {
            let queue = Queue::start().await;
            let original = Altered::new(&queue, None).await;
            $killer(&original.queue).await;
            let mutant = Alteration { file: $file, cut: $cut, put: $put };
            let altered = Altered::new(&queue, Some(mutant)).await;
            assert!(fails($killer(&altered.queue)).await, "{} survived {mutant:?}", stringify!($killer));
        })*
    };
}

async fn fails(behaviour: impl Future<Output = ()>) -> bool {
    !matches!(timeout(SOON, AssertUnwindSafe(behaviour).catch_unwind()).await, Ok(Ok(())))
}

mutants! {
    // How a job comes in.
    submit_overwrites: "submit.lua" "redis.call('EXISTS', job) == 0" => "true",
        submit::repeating_a_submission_with_its_id_changes_nothing;
    submit_ignores_the_key: "submit.lua" "    if status then" => "    if false then",
        submit::a_key_makes_one_job_whatever_became_of_it;
    submit_remembers_keys_of_vanished_jobs: "submit.lua" "    if status then" => "    if true then",
        submit::a_key_is_remembered_as_long_as_its_job;
    submit_ignores_the_body: "submit.lua" "of == fingerprint and " => "",
        submit::a_key_used_for_another_request_is_refused_without_a_trace;
    submit_forgets_keys_before_their_jobs: "submit.lua" "fingerprint .. ' ' .. id)" => "fingerprint .. ' ' .. id, 'EX', 60)",
        submit::a_key_is_remembered_as_long_as_its_job;
    submit_exceeds_the_limit: "submit.lua" "depth >= limit" => "depth > limit",
        submit::the_limit_counts_every_job_that_has_not_ended;
    submit_knows_no_unlimited_queue: "submit.lua" "limit > 0 and depth" => "depth",
        submit::without_a_limit_the_queue_is_never_full;
    submit_counts_once_for_all: "submit.lua" "      depth = depth + 1\n" => "",
        together::no_more_of_them_are_accepted_than_the_queue_has_room_for;
    submit_ignores_max_queue: "accept.lua" "max_queue_ms > 0" => "false",
        deadlines::a_job_within_its_limits_is_kept_and_shows_the_next_one;
    submit_ignores_short_memory: "submit.lua" "#!lua\n" => "#!lua flags=allow-oom\n",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;
    limit_counts_one_stream: "accept.lua" " + redis.call('XLEN', normal) + redis.call('XLEN', low)" => "",
        submit::the_limit_counts_every_job_that_has_not_ended;
    accepted_jobs_are_not_listed: "accept.lua" "return redis.call('XADD', log, '*', 'id', log_id)" => "return '1-0'",
        submit::an_accepted_job_waits_and_is_listed_newest_first;
    ids_are_the_time: "accept.lua" "if number == '0' then" => "if true then",
        clock::jobs_have_the_right_time_after_the_clock_was_ahead;
    ids_that_are_ahead_are_not_noted: "accept.lua" "if id_ms > now + AHEAD then" => "if false then",
        clock::a_listing_by_time_begins_where_the_ids_were_ahead;
    only_the_last_ids_that_are_ahead_are_noted: "accept.lua" "math.min(now, tonumber(from or now))" => "now",
        clock::a_listing_by_time_begins_where_the_ids_were_ahead;
    requeue_makes_two_jobs: "requeue.lua" "redis.call('EXISTS', KEYS[1]) == 1" => "false",
        submit::a_failed_job_runs_again_as_a_new_one_and_keeps_its_own_record;
    requeue_takes_unfinished_jobs: "requeue.lua" "if old[1] ~= 'failed' and old[1] ~= 'cancelled' then" => "if false then",
        transitions::every_script_does_in_every_state_what_the_table_says;
    requeue_makes_inputs_up: "requeue.lua" "if not input then" => "if false then",
        inputs::a_job_whose_input_has_expired_does_not_run_again_and_stays_as_it_was;
    requeue_ignores_earlier_releases: "requeue.lua" "old[3] or " => "",
        inputs::a_job_that_an_earlier_release_ended_runs_again;
    requeue_exceeds_the_limit: "requeue.lua" "depth >= limit" => "depth > limit",
        submit::a_full_queue_takes_no_repetition;
    requeue_ignores_short_memory: "requeue.lua" "#!lua\n" => "#!lua flags=allow-oom\n",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;

    // What payers keep.
    submit_charges_nobody: "submit.lua" "        recharge(job, payer, 0, '', bytes, NOT_DUE)\n" => "",
        quota::a_large_input_is_charged_until_its_job_completes;
    submit_charges_small_jobs: "submit.lua" "ARGV[next - 2] == 'charged'" => "false",
        quota::a_large_input_is_charged_until_its_job_completes;
    submit_exceeds_the_quota: "submit.lua" "payer and over_quota(job, payer, bytes, most_kept)" => "nil",
        quota::who_keeps_as_much_as_it_may_is_refused_without_a_trace;
    the_quota_is_one_byte_too_small: "accept.lua" "+ bytes > most then" => "+ bytes >= most then",
        quota::who_keeps_as_much_as_it_may_is_refused_without_a_trace;
    the_quota_ignores_the_new_job: "accept.lua" "payer) or 0) + bytes > most" => "payer) or 0) > most",
        quota::who_keeps_as_much_as_it_may_is_refused_without_a_trace;
    no_quota_is_none_at_all: "accept.lua" "most > 0 and " => "",
        quota::a_large_input_is_charged_until_its_job_completes;
    a_refusal_ignores_jobs_that_wait: "accept.lua" "if first('[' .. NOT_DUE, '+') then" => "if false then",
        quota::a_refusal_says_when_there_may_be_room;
    a_refusal_looks_at_others: "accept.lua" "if of == payer then" => "if of ~= payer then",
        quota::a_refusal_says_when_there_may_be_room;
    requeue_charges_nobody: "requeue.lua" "  recharge(KEYS[1], payer, 0, '', bytes, NOT_DUE)\n" => "",
        quota::a_job_that_runs_again_is_charged_to_its_owner_or_to_who_asks;
    requeue_exceeds_the_quota: "requeue.lua" "  if refused then" => "  if false then",
        quota::a_job_that_runs_again_is_charged_to_its_owner_or_to_who_asks;
    requeue_charges_who_asks: "requeue.lua" "old[4] and 'o:' .. old[4] or ARGV[7]" => "ARGV[7]",
        quota::a_job_that_runs_again_is_charged_to_its_owner_or_to_who_asks;
    requeue_charges_without_a_quota: "requeue.lua" "ARGV[7] ~= '' and " => "",
        quota::without_a_charge_a_large_job_is_not_counted;
    requeue_forgets_large_results: "requeue.lua" " or old[5])" => ")",
        quota::a_job_that_runs_again_may_have_a_large_result_again;
    requeue_forgets_who_pays: "requeue.lua" "  table.insert(fields, 'charged')\n  table.insert(fields, int(bytes) .. ' ' .. payer)\n" => "",
        quota::a_job_that_runs_again_may_have_a_large_result_again;
    complete_charges_no_result: "complete.lua" "size > LARGE and size or 0" => "0",
        quota::a_large_result_is_charged_until_it_expires;
    complete_charges_small_results: "complete.lua" "size > LARGE and size or 0" => "size",
        quota::a_large_result_is_charged_until_it_expires;
    complete_charges_for_ever: "complete.lua" "due_in(now, ARGV[1])" => "NOT_DUE",
        quota::a_large_result_is_charged_until_it_expires;
    complete_leaves_the_charge_in_the_record: "complete.lua" "  redis.call('HDEL', ending[i], 'charged')\n" => "",
        quota::a_large_input_is_charged_until_its_job_completes;
    complete_mixes_charges_up: "complete.lua" "charges[#ending] = job[5]" => "charges[1] = job[5]",
        quota::results_that_are_stored_at_once_are_charged_to_their_own_payers;
    end_charges_as_long_as_the_job: "end.lua" "due_in(now, job.input_ttl_s)" => "due_in(now, job.ttl_s)",
        quota::a_kept_input_is_charged_until_it_expires;
    end_drops_the_charge: "end.lua" "input and bytes or 0" => "0",
        quota::a_kept_input_is_charged_until_it_expires;
    recharge_leaves_the_old_charge: "quota.lua" "old_bytes > 0 and " => "false and ",
        quota::a_large_input_is_charged_until_its_job_completes;
    recharge_counts_what_is_not_there: "quota.lua" "int(old_bytes) .. ' ' .. payer) == 1 then" => "int(old_bytes) .. ' ' .. payer) >= 0 then",
        recount::a_recount_corrects_the_sums;
    recharge_ignores_a_recount: "quota.lua" "if recounted ~= 0 then" => "if false then",
        recount::a_recount_is_right_whatever_happens_meanwhile;
    recharge_is_always_behind_a_recount: "quota.lua" "seen and old_due .. ' ' .. id <= seen and -old_bytes" => "seen and -old_bytes",
        recount::a_recount_is_right_whatever_happens_meanwhile;
    recharge_is_always_before_a_recount: "quota.lua" "(seen and due .. ' ' .. id <= seen and bytes or 0)" => "0",
        recount::a_recount_is_right_whatever_happens_meanwhile;
    sums_stay_for_ever: "quota.lua" "if sum > 0 then" => "if true then",
        quota::a_large_input_is_charged_until_its_job_completes;
    uncharge_is_hasty: "uncharge.lua" "'-', '(' .. due_in(server_now(), 0)" => "'-', '+'",
        quota::a_large_result_is_charged_until_it_expires;
    uncharge_knows_no_limit: "uncharge.lua" "'LIMIT', 0, ARGV[1]" => "'LIMIT', 0, 100",
        quota::charges_are_dropped_as_many_as_asked_for;
    uncharge_ignores_a_recount: "uncharge.lua" "if seen and place <= seen then" => "if false then",
        recount::a_recount_is_right_whatever_happens_meanwhile;
    uncharge_keeps_the_sums: "uncharge.lua" "  add(KEYS[2], payer, bytes)\n" => "",
        quota::a_large_result_is_charged_until_it_expires;
    recount_begins_anew: "recount.lua" "seen and '(' .. seen .. '!' or '-'" => "'-'",
        recount::a_recount_is_right_whatever_happens_meanwhile;
    recount_believes_in_jobs_that_are_gone: "recount.lua" "status and not TERMINAL[status]" => "true",
        recount::a_recount_drops_charges_of_jobs_that_are_gone;
    recount_believes_in_jobs_that_ended: "recount.lua" "status and not TERMINAL[status]" => "status",
        recount::a_recount_drops_charges_of_jobs_that_are_gone;
    recount_changes_nothing: "recount.lua" "redis.pcall('RENAME', KEYS[3], KEYS[2]).err" => "false",
        recount::a_recount_corrects_the_sums;
    recount_of_nothing_changes_nothing: "recount.lua" "  redis.call('EXPIRE', KEYS[2], 0)\n" => "",
        recount::a_recount_corrects_the_sums;
    recount_keeps_sums_of_dropped_charges: "recount.lua" "  add(KEYS[2], payer, bytes)\n" => "",
        recount::a_recount_drops_charges_at_once;

    // Whose job it is.
    owners_are_forgotten: "accept.lua" "  redis.call('HSET', job, 'owner', owner)\n" => "",
        owners::an_owner_is_kept_with_the_job_and_told_by_the_log;
    the_log_tells_no_owner: "accept.lua" "    table.insert(entry_fields, 'owner')\n    table.insert(entry_fields, owner)\n" => "",
        owners::an_owner_is_kept_with_the_job_and_told_by_the_log;
    everybody_sees_every_job: "found.lua" "view == (owner or '')" => "true",
        owners::only_who_sees_a_job_can_cancel_it;
    nobody_sees_every_job: "found.lua" "view == '*' or " => "",
        owners::only_who_sees_a_job_can_cancel_it;
    cancel_is_for_everybody: "cancel.lua" " or not sees(ARGV[2], job[4])" => "",
        owners::only_who_sees_a_job_can_cancel_it;
    requeue_is_for_everybody: "requeue.lua" " or not sees(ARGV[5], old[4])" => "",
        owners::only_who_sees_a_job_can_repeat_it_and_its_owner_stays;
    requeue_takes_the_owner_away: "requeue.lua" "old[4] or ''" => "''",
        owners::only_who_sees_a_job_can_repeat_it_and_its_owner_stays;

    // Who is given a job.
    grant_takes_any_entry: "grant.lua" "job[2] ~= entry or " => "",
        delivery::an_entry_without_an_outstanding_job_is_removed;
    grant_leaves_stale_entries_pending: "grant.lua" "    redis.call('XACK', stream, GROUP, entry)\n" => "",
        delivery::an_entry_without_an_outstanding_job_is_removed;
    grant_leaves_stale_entries: "grant.lua" "    redis.call('XDEL', stream, entry)\n" => "",
        delivery::an_entry_without_an_outstanding_job_is_removed;
    grant_keeps_the_token: "grant.lua" "attempt = attempt + 1" => "attempt = math.max(attempt, 1)",
        leases::a_zombie_cannot_settle_its_job;
    grant_counts_no_lost_lease: "grant.lua" "lost = lost + 1" => "lost = lost",
        leases::a_job_whose_lease_lapsed_goes_to_another_worker;
    grant_counts_every_lease_as_lost: "grant.lua" "if status == 'processing' then" => "if waited_ms then",
        giving_back::a_release_uses_no_attempt;
    grant_knows_no_crash_limit: "grant.lua" "lost >= grants.max_lost" => "false",
        leases::a_job_that_loses_its_worker_too_often_fails;
    grant_knows_no_deadline: "grant.lua" "missed_deadline(grants.now, waited_ms, job[5], deadline)" => "nil",
        deadlines::a_job_that_waited_too_long_is_not_run;
    grant_starts_the_clock_anew: "grant.lua" "  if waited_ms then" => "  if false then",
        deadlines::the_run_time_begins_once_and_goes_on_over_retries;
    grant_leaves_the_retry_time: "grant.lua" "    redis.call('HDEL', key, 'next_attempt_at')\n" => "",
        transitions::every_script_does_in_every_state_what_the_table_says;
    grant_runs_several_jobs_whose_lone_call_broke_off: "grant.lua" "if broken > 1 then" => "if false then",
        giving_back::of_jobs_whose_lone_call_broke_off_one_runs_at_a_time;
    grant_stops_every_job_whose_call_broke_off: "grant.lua" "if broken > 1 then" => "if broken > 0 then",
        giving_back::of_jobs_whose_lone_call_broke_off_one_runs_at_a_time;
    grant_waits_for_a_job_that_does_not_run: "grant.lua" " and redis.call('HGET', grants.prefix .. other, 'status') == 'processing'" => "",
        giving_back::of_jobs_whose_lone_call_broke_off_one_runs_at_a_time;
    grant_lets_a_job_wait_for_itself: "grant.lua" "other ~= id and " => "",
        giving_back::of_jobs_whose_lone_call_broke_off_one_runs_at_a_time;
    ages_can_be_negative: "clock.lua" "math.max(now - tonumber(created_at or now), 0)" => "now - tonumber(created_at)",
        delivery::a_job_from_the_future_is_zero_old;
    take_makes_no_group: "take.lua" "string.find(reply.err, 'NOGROUP', 1, true)" => "false",
        delivery::a_missing_group_is_made_and_nothing_that_waits_is_skipped;
    take_skips_what_waits: "take.lua" "GROUP, '0', 'MKSTREAM'" => "GROUP, '$', 'MKSTREAM'",
        delivery::a_missing_group_is_made_and_nothing_that_waits_is_skipped;
    take_gives_too_many: "take.lua" "math.min(want - grants.count, CHUNK)" => "CHUNK",
        delivery::no_more_jobs_come_than_asked_for;
    take_gives_too_much: "grant.lua" "if grants.bytes >= grants.max_bytes then" => "if false then",
        delivery::reading_stops_once_there_are_enough_bytes;
    take_reads_on_with_enough_bytes: "take.lua" "grants.bytes >= grants.max_bytes or " => "",
        delivery::reading_stops_once_there_are_enough_bytes;
    take_keeps_what_it_does_not_grant: "take.lua" "redis.call('XACK', stream, GROUP, unpack(entries))" => "",
        delivery::reading_stops_once_there_are_enough_bytes;
    take_delivers_granted_jobs_again: "take.lua" "'SETID', stream, GROUP, last" => "'SETID', stream, GROUP, '0'",
        delivery::reading_stops_once_there_are_enough_bytes;
    take_loses_what_it_may_not_undeliver: "take.lua" "if moved.err then" => "if false then",
        delivery::a_user_without_the_right_to_undeliver_leaves_jobs_to_the_next_look;
    take_keeps_due_jobs_that_it_does_not_grant: "take.lua" "      if rest then\n        make_due(grants, number, rest)\n" => "      if rest then\n",
        delivery::looking_for_due_jobs_stops_once_there_are_enough_bytes;
    take_skips_due_jobs_that_it_did_not_grant: "take.lua" "rest and rest[1] or reply[1]" => "reply[1]",
        delivery::looking_for_due_jobs_stops_once_there_are_enough_bytes;
    what_is_left_waits_for_a_lease: "grant.lua" "'IDLE', grants.lease_ms" => "'IDLE', 0",
        delivery::starting_stops_once_there_are_enough_bytes;
    start_gives_too_much: "start.lua" "if grants.bytes >= grants.max_bytes then" => "if false then",
        delivery::starting_stops_once_there_are_enough_bytes;
    take_clears_a_whole_backlog: "take.lua" " or grants.stale + grants.put_off + #grants.ended >= MOST_CLEARED" => "",
        endurance::one_call_clears_away_a_bounded_number_of_stale_entries;
    take_ignores_the_lease: "take.lua" "ARGV[2], ARGV[9], cursors[number]" => "ARGV[2], 0, cursors[number]",
        giving_back::a_retry_is_due_after_its_delay_and_not_before;
    take_looks_at_one_part_of_the_pending_list: "take.lua" "for look = 1, 32 do" => "for look = 1, 1 do",
        delivery::a_due_entry_behind_many_others_is_found_in_a_few_looks;
    take_takes_what_it_did_not_look_at_for_looked_at: "take.lua" "cursors[number] = '0-1'" => "",
        delivery::a_look_that_did_not_come_to_a_stream_does_not_end_there;
    take_forgets_its_cursor: "take.lua" "rest and rest[1] or reply[1]" => "'0-0'",
        delivery::a_due_entry_behind_many_others_is_found_in_a_few_looks;
    take_ignores_the_order: "take.lua" "string.gmatch(ARGV[6], '%d')" => "string.gmatch('123', '%d')",
        delivery::the_caller_may_turn_the_order_of_priorities_around;
    start_takes_what_is_no_longer_ours: "start.lua" "CHUNK, ARGV[6])" => "CHUNK)",
        leases::a_worker_that_slept_past_its_delivery_starts_nothing;
    start_grants_a_lapsed_lease: "start.lua" "0, pending[1])\n" => "0, pending[1], 'IDLE', 10000000)\n",
        leases::the_lease_of_a_started_job_begins_with_its_start;
    start_leaves_it_in_the_inbox: "start.lua" "GROUP, ARGV[2], 0" => "GROUP, ARGV[6], 0",
        delivery::an_entry_that_a_blocking_read_gave_is_started;

    // Who may write to a job.
    fence_ignores_the_token: "hold.lua" "status == 'processing' and attempt == token" => "status == 'processing'",
        leases::a_zombie_cannot_settle_its_job;
    fence_ignores_the_state: "hold.lua" "status == 'processing' and attempt == token" => "attempt == token",
        leases::an_attempt_that_gave_its_job_back_cannot_end_it;
    fence_hides_a_cancel: "hold.lua" "status == 'cancelled' and 'cancelled' or 'lost'" => "'lost'",
        leases::renewing_names_exactly_the_jobs_that_must_be_stopped;
    fence_knows_no_missing_job: "hold.lua" "  if not status then" => "  if false then",
        transitions::every_script_does_in_every_state_what_the_table_says;
    complete_is_not_fenced: "complete.lua" "if refused then" => "if false then",
        leases::a_zombie_cannot_settle_its_job;
    complete_cannot_be_repeated: "complete.lua" "job[1] == 'completed' and job[2] == token" => "false",
        giving_back::repeating_a_settlement_changes_nothing;
    complete_claims_others_results: "complete.lua" "job[1] == 'completed' and job[2] == token" => "job[1] == 'completed'",
        transitions::every_script_does_in_every_state_what_the_table_says;
    complete_mixes_up_the_streams: "complete.lua" "entries[tonumber(ARGV[argument + 1])]" => "entries[2]",
        ends::many_results_stored_at_once_reach_their_own_jobs;
    complete_keeps_large_results_with_their_jobs: "complete.lua" "#result <= LARGE" => "true",
        ends::a_large_result_is_read_by_itself_and_its_job_says_its_size;
    complete_takes_a_result_for_large_too_soon: "complete.lua" "#result <= LARGE" => "#result < LARGE",
        ends::a_large_result_is_read_by_itself_and_its_job_says_its_size;
    complete_mixes_up_the_results: "complete.lua" "table.insert(results, ARGV[argument + 2])" => "table.insert(results, ARGV[4])",
        ends::many_results_stored_at_once_reach_their_own_jobs;
    fail_is_not_fenced: "fail.lua" "if refused then" => "if false then",
        leases::a_zombie_cannot_settle_its_job;
    fail_cannot_be_repeated: "fail.lua" "job[1] == 'failed' and job[2] == ARGV[1] and job[5] == ARGV[3]" => "false",
        giving_back::repeating_a_settlement_changes_nothing;
    fail_claims_other_failures: "fail.lua" " and job[5] == ARGV[3]" => "",
        transitions::every_script_does_in_every_state_what_the_table_says;
    retry_is_not_fenced: "retry.lua" "if refused then" => "if false then",
        leases::a_zombie_cannot_settle_its_job;
    retry_cannot_be_repeated: "retry.lua" "job[1] == 'pending' and job[2] == ARGV[1]" => "false",
        giving_back::repeating_a_settlement_changes_nothing;
    retry_waits_without_limit: "retry.lua" "math.min(tonumber(ARGV[3]), lease_ms)" => "tonumber(ARGV[3])",
        giving_back::a_delay_longer_than_the_lease_is_the_lease;
    release_is_not_fenced: "release.lua" "if refused then" => "if false then",
        leases::a_zombie_cannot_settle_its_job;
    release_cannot_be_repeated: "release.lua" "job[1] == 'pending' and job[2] == ARGV[1]" => "false",
        giving_back::repeating_a_settlement_changes_nothing;
    release_uses_an_attempt: "release.lua" "tonumber(job[4] or 0) + 1" => "tonumber(job[4] or 0)",
        giving_back::a_release_uses_no_attempt;
    release_forgets_calls_that_broke_off: "release.lua" "ARGV[4] == '1'" => "false",
        giving_back::calls_that_broke_off_are_counted_and_use_no_attempt;
    release_takes_every_call_for_broken: "release.lua" "ARGV[4] == '1'" => "true",
        giving_back::calls_that_broke_off_are_counted_and_use_no_attempt;
    release_counts_one_broken_call: "release.lua" "tonumber(job[5] or 0) + 1" => "1",
        giving_back::calls_that_broke_off_are_counted_and_use_no_attempt;
    renew_is_not_fenced: "renew.lua" "if refused then" => "if false then",
        leases::a_zombie_cannot_take_its_job_back_by_renewing;
    renew_does_nothing: "renew.lua" "claim(entry[1], ARGV[2], entry[2], 0)" => "",
        leases::a_lease_that_is_renewed_does_not_lapse;

    // How a job is given back.
    hand_back_stops_at_a_missing_group: "hold.lua" "redis.pcall('XCLAIM'" => "redis.call('XCLAIM'",
        repairs::giving_a_job_back_repairs_its_entry;
    hand_back_keeps_the_worker: "hold.lua" "claim(job.stream, WAITING, job.entry, idle)" => "claim(job.stream, 'w', job.entry, idle)",
        giving_back::a_retry_is_due_after_its_delay_and_not_before;
    hand_back_makes_the_job_wait_a_lease: "hold.lua" "'IDLE', idle_ms, " => "",
        delivery::what_is_due_again_comes_before_anything_new;
    hand_back_leaves_two_entries: "hold.lua" "  redis.call('XDEL', job.stream, job.entry)\n" => "",
        repairs::giving_a_job_back_repairs_its_entry;
    hand_back_forgets_the_new_entry: "hold.lua" "redis.call('HSET', job.key, 'entry', redis.call('XADD', job.stream, '*', 'id', job.id))" => "redis.call('XADD', job.stream, '*', 'id', job.id)",
        repairs::giving_a_job_back_repairs_its_entry;

    // How a job ends.
    end_leaves_the_entry_pending: "end.lua" "  redis.call('XACK', stream, GROUP, unpack(entries))\n" => "",
        repairs::a_running_job_can_end_whatever_became_of_its_entry;
    end_leaves_the_entry: "end.lua" "  redis.call('XDEL', stream, unpack(entries))\n" => "",
        transitions::every_script_does_in_every_state_what_the_table_says;
    end_keeps_the_job_for_ever: "end.lua" "  redis.call('EXPIRE', key, ttl_s)\n" => "",
        transitions::every_script_does_in_every_state_what_the_table_says;
    end_is_not_published: "end.lua" "  redis.call('PUBLISH', key, status)\n" => "",
        ends::every_end_is_published_to_whoever_waits_for_it;
    end_counts_from_another_moment: "end.lua" "int(age(created_at, now))" => "0",
        ends::every_end_tells_when_it_was;
    end_leaves_the_input_in_the_record: "end.lua" "'HDEL', key, 'input', " => "'HDEL', key, ",
        transitions::every_script_does_in_every_state_what_the_table_says;
    end_keeps_no_input: "end.lua" "    redis.call('SET', input_key(job.key), input, 'EX', job.input_ttl_s)\n" => "",
        submit::a_failed_job_runs_again_as_a_new_one_and_keeps_its_own_record;
    end_keeps_the_input_for_ever: "end.lua" "input, 'EX', job.input_ttl_s" => "input",
        transitions::every_script_does_in_every_state_what_the_table_says;
    end_keeps_the_input_as_long_as_the_job: "end.lua" "'EX', job.input_ttl_s" => "'EX', job.ttl_s",
        transitions::every_script_does_in_every_state_what_the_table_says;
    end_needs_an_input: "end.lua" "  if input then" => "  if true then",
        inputs::a_damaged_job_without_input_can_end;
    end_leaves_transient_fields: "end.lua" "'input', 'entry', 'next_attempt_at', " => "'input', ",
        transitions::every_script_does_in_every_state_what_the_table_says;
    dead_letters_are_never_trimmed: "end.lua" "'MAXLEN', '~', dead.max, " => "",
        ends::dead_letters_are_kept_up_to_a_limit;
    queue_limit_does_not_end: "end.lua" "queue_deadline and not waited_ms and" => "queue_deadline and",
        deadlines::the_queue_limit_ends_with_the_first_attempt;
    run_time_is_unlimited: "end.lua" "run_deadline and now > tonumber(run_deadline)" => "false",
        deadlines::a_job_that_ran_too_long_is_not_tried_again;
    cancel_cannot_be_repeated: "cancel.lua" "if status == 'cancelled' then" => "if false then",
        transitions::every_script_does_in_every_state_what_the_table_says;
    cancel_changes_ended_jobs: "cancel.lua" "if TERMINAL[status] then" => "if false then",
        transitions::every_script_does_in_every_state_what_the_table_says;
    cancel_makes_jobs_up: "cancel.lua" "not status or " => "false or ",
        transitions::every_script_does_in_every_state_what_the_table_says;
    expire_fails_jobs_in_time: "expire.lua" " or not why" => "",
        transitions::every_script_does_in_every_state_what_the_table_says;
    expire_makes_jobs_up: "expire.lua" "if not job[1] then" => "if false then",
        transitions::every_script_does_in_every_state_what_the_table_says;

    // What short memory must not stop.
    take_needs_memory: "take.lua" "#!lua flags=allow-oom" => "#!lua",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;
    renew_needs_memory: "renew.lua" "#!lua flags=allow-oom" => "#!lua",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;
    complete_needs_memory: "complete.lua" "#!lua flags=allow-oom" => "#!lua",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;
    fail_needs_memory: "fail.lua" "#!lua flags=allow-oom" => "#!lua",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;
    retry_needs_memory: "retry.lua" "#!lua flags=allow-oom" => "#!lua",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;
    release_needs_memory: "release.lua" "#!lua flags=allow-oom" => "#!lua",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;
    cancel_needs_memory: "cancel.lua" "#!lua flags=allow-oom" => "#!lua",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;
    expire_needs_memory: "expire.lua" "#!lua flags=allow-oom" => "#!lua",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;
    start_needs_memory: "start.lua" "#!lua flags=allow-oom" => "#!lua",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;
    heartbeat_needs_memory: "heartbeat.lua" "#!lua flags=allow-oom" => "#!lua",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;
    sweep_needs_memory: "sweep.lua" "#!lua flags=allow-oom" => "#!lua",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;
    uncharge_needs_memory: "uncharge.lua" "#!lua flags=allow-oom" => "#!lua",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;
    recount_needs_memory: "recount.lua" "#!lua flags=allow-oom" => "#!lua",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;
    prune_needs_memory: "prune.lua" "#!lua flags=allow-oom" => "#!lua",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;

    // What keeps the data in order.
    the_log_tells_no_key: "accept.lua" "    table.insert(entry_fields, 'idem')\n    table.insert(entry_fields, string.match(record, '[^:]+$'))\n" => "",
        submit::a_key_is_remembered_as_long_as_its_job;
    sweep_keeps_keys_for_ever: "sweep.lua" "redis.call('EXPIRE', record, 0)" => "",
        submit::a_key_is_remembered_as_long_as_its_job;
    sweep_forgets_keys_of_later_jobs: "sweep.lua" "known and string.match(known, ' (.+)$') == id" => "known",
        submit::a_key_is_remembered_as_long_as_its_job;
    sweep_of_expired_jobs_looks_at_all: "sweep.lua" "min_age > 0 and is_recent(job[4])" => "false",
        upkeep::a_sweep_of_what_can_have_expired_looks_at_no_younger_jobs;
    sweep_waits_for_a_wrong_clock: "sweep.lua" " and accepted <= now" => "",
        clock::expired_jobs_are_forgotten_after_the_clock_was_ahead;
    sweep_stops_at_a_job_without_entry: "sweep.lua" "not entry or " => "",
        upkeep::a_job_without_its_entry_is_queued_again_or_cancelled;
    ends_need_an_entry: "end.lua" "  if job.entry then\n" => "  if true then\n",
        upkeep::a_job_without_its_entry_is_queued_again_or_cancelled;
    sweep_queues_new_jobs_twice: "sweep.lua" "is_after(entry, delivered[number])" => "false",
        upkeep::a_sweep_leaves_everything_alone_that_is_in_order;
    sweep_trusts_the_pending_list: "sweep.lua" "#redis.call('XPENDING', stream, GROUP, entry, entry, 1) == 1" => "true",
        upkeep::a_sweep_queues_jobs_again_that_nobody_would_be_given;
    sweep_misses_deleted_entries: "sweep.lua" "#redis.call('XRANGE', stream, entry, entry) == 0" => "false",
        upkeep::a_sweep_queues_jobs_again_that_nobody_would_be_given;
    sweep_repairs_ended_jobs: "sweep.lua" "elseif not TERMINAL[job[1]] then" => "else",
        upkeep::a_sweep_leaves_everything_alone_that_is_in_order;
    sweep_leaves_two_entries: "sweep.lua" "  redis.call('XDEL', job.stream, job.entry)\n" => "",
        upkeep::a_sweep_queues_jobs_again_that_nobody_would_be_given;
    sweep_takes_jobs_for_expired: "sweep.lua" "'%02x%02x%02x%02x-" => "'%02x%02x%02x%02x",
        upkeep::a_sweep_forgets_expired_jobs;
    sweep_takes_anything_for_an_id: "sweep.lua" "#bytes == 16" => "true",
        upkeep::a_sweep_forgets_expired_jobs;
    sweep_forgets_nothing: "sweep.lua" "redis.call('XDEL', KEYS[1], unpack(forgotten))" => "",
        upkeep::a_sweep_forgets_expired_jobs;
    prune_loses_pending_entries: "prune.lua" "consumer.pending == 0 and " => "",
        upkeep::consumers_of_dead_workers_go_once_they_hold_nothing;
    prune_is_hasty: "prune.lua" " and consumer.idle > tonumber(ARGV[1])" => "",
        upkeep::consumers_of_dead_workers_go_once_they_hold_nothing;
    prune_removes_the_living: "prune.lua" " and not is_live(consumer.name)" => "",
        upkeep::consumers_of_dead_workers_go_once_they_hold_nothing;
    prune_removes_the_waiting: "prune.lua" " and consumer.name ~= WAITING" => "",
        upkeep::consumers_of_dead_workers_go_once_they_hold_nothing;
    heartbeat_remembers_the_dead: "heartbeat.lua" "now - seen > tonumber(ARGV[3])" => "false",
        upkeep::workers_live_as_long_as_they_are_heard;
    heartbeat_keeps_who_leaves: "heartbeat.lua" "if ARGV[2] == '' then" => "if false then",
        upkeep::workers_live_as_long_as_they_are_heard;
    workers_lists_the_dead: "workers.lua" " and now - tonumber(seen) <= tonumber(ARGV[1])" => "",
        upkeep::workers_live_as_long_as_they_are_heard;
}
