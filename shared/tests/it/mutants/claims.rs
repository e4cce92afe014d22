//! Who sees a job, and who claims it.

use super::{Alteration, Altered, Queue, fails};
use crate::{deadlines, delivery, endurance, leases, owners, put_back, transitions};

mutants! {
    // Whose job it is.
    owners_are_forgotten: "accept.lua" "  redis.call('HSET', job, 'owner', owner)\n" => "",
        owners::an_owner_is_stored_with_the_job_and_in_the_log;
    the_log_tells_no_owner: "accept.lua" "    table.insert(entry_fields, 'owner')\n    table.insert(entry_fields, owner)\n" => "",
        owners::an_owner_is_stored_with_the_job_and_in_the_log;
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
        put_back::a_release_uses_no_attempt;
    grant_knows_no_crash_limit: "grant.lua" "lost >= grants.max_lost" => "false",
        leases::a_job_that_loses_its_worker_too_often_fails;
    grant_knows_no_deadline: "grant.lua" "missed_deadline(grants.now, waited_ms, job[5], deadline)" => "nil",
        deadlines::a_job_that_waited_too_long_is_not_run;
    grant_starts_the_clock_anew: "grant.lua" "  if waited_ms then" => "  if false then",
        deadlines::the_run_time_begins_once_and_goes_on_over_retries;
    grant_leaves_the_retry_time: "grant.lua" "    redis.call('HDEL', key, 'next_attempt_at')\n" => "",
        transitions::every_script_does_in_every_state_what_the_table_says;
    grant_runs_several_jobs_whose_lone_call_broke_off: "grant.lua" "if broken > 1 then" => "if false then",
        put_back::of_jobs_whose_lone_call_broke_off_one_runs_at_a_time;
    grant_stops_every_job_whose_call_broke_off: "grant.lua" "if broken > 1 then" => "if broken > 0 then",
        put_back::of_jobs_whose_lone_call_broke_off_one_runs_at_a_time;
    grant_waits_for_a_job_that_does_not_run: "grant.lua" " and redis.call('HGET', grants.prefix .. other, 'status') == 'processing'" => "",
        put_back::of_jobs_whose_lone_call_broke_off_one_runs_at_a_time;
    grant_lets_a_job_wait_for_itself: "grant.lua" "other ~= id and " => "",
        put_back::of_jobs_whose_lone_call_broke_off_one_runs_at_a_time;
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
    take_ignores_the_lease: "take.lua" "ARGV[2], ARGV[8], cursors[number]" => "ARGV[2], 0, cursors[number]",
        put_back::a_retry_is_due_after_its_delay_and_not_before;
    take_looks_at_one_part_of_the_pending_list: "take.lua" "for look = 1, 32 do" => "for look = 1, 1 do",
        delivery::a_due_entry_behind_many_others_is_found_in_a_few_looks;
    take_takes_what_it_did_not_look_at_for_looked_at: "take.lua" "cursors[number] = '0-1'" => "",
        delivery::a_look_that_did_not_come_to_a_stream_does_not_end_there;
    take_forgets_its_cursor: "take.lua" "rest and rest[1] or reply[1]" => "'0-0'",
        delivery::a_due_entry_behind_many_others_is_found_in_a_few_looks;
    take_ignores_the_order: "take.lua" "for number, stream in ipairs(KEYS) do\n  local count = room()" => "for number = #KEYS, 1, -1 do\n  local stream, count = KEYS[number], room()",
        delivery::the_caller_may_turn_the_order_of_priorities_around;
    start_takes_what_is_no_longer_ours: "start.lua" "CHUNK, ARGV[6])" => "CHUNK)",
        leases::a_worker_that_slept_past_its_delivery_starts_nothing;
    start_grants_a_lapsed_lease: "start.lua" "0, pending[1])\n" => "0, pending[1], 'IDLE', 10000000)\n",
        leases::the_lease_of_a_started_job_begins_with_its_start;
    start_leaves_it_in_the_inbox: "start.lua" "GROUP, ARGV[2], 0" => "GROUP, ARGV[6], 0",
        delivery::an_entry_that_a_blocking_read_gave_is_started;
}
