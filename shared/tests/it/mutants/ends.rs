//! Who may write to a job, and how an attempt ends.

use super::{Alteration, Altered, Queue, fails};
use crate::{deadlines, delivery, ends, inputs, leases, put_back, repairs, submit, transitions};

mutants! {
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
        put_back::repeating_a_settlement_changes_nothing;
    complete_claims_others_results: "complete.lua" "job[1] == 'completed' and job[2] == token" => "job[1] == 'completed'",
        transitions::every_script_does_in_every_state_what_the_table_says;
    complete_mixes_up_the_streams: "complete.lua" "entries[tonumber(ARGV[argument + 1])]" => "entries[2]",
        ends::many_results_stored_at_once_reach_their_own_jobs;
    complete_keeps_large_results_with_their_jobs: "complete.lua" "#result <= LARGE" => "true",
        ends::a_large_result_is_read_by_itself_and_its_job_says_its_size;
    complete_takes_a_result_for_large_too_soon: "complete.lua" "#result <= LARGE" => "#result < LARGE",
        ends::a_large_result_is_read_by_itself_and_its_job_says_its_size;
    complete_takes_large_tensors_for_json: "complete.lua" "string.byte(result) == TENSORS" => "false",
        ends::tensors_are_read_as_tensors_whatever_their_size;
    complete_takes_large_bytes_for_json: "complete.lua" "string.byte(result) == BYTES" => "false",
        ends::bytes_are_read_with_their_content_type_whatever_their_size;
    complete_cuts_the_content_type: "complete.lua" "2 + string.byte(result, 2)" => "string.byte(result, 2)",
        ends::bytes_are_read_with_their_content_type_whatever_their_size;
    complete_mixes_up_the_results: "complete.lua" "table.insert(results, ARGV[argument + 2])" => "table.insert(results, ARGV[4])",
        ends::many_results_stored_at_once_reach_their_own_jobs;
    fail_is_not_fenced: "fail.lua" "if refused then" => "if false then",
        leases::a_zombie_cannot_settle_its_job;
    fail_cannot_be_repeated: "fail.lua" "job[1] == 'failed' and job[2] == ARGV[1] and job[5] == ARGV[3]" => "false",
        put_back::repeating_a_settlement_changes_nothing;
    fail_claims_other_failures: "fail.lua" " and job[5] == ARGV[3]" => "",
        transitions::every_script_does_in_every_state_what_the_table_says;
    retry_is_not_fenced: "retry.lua" "if refused then" => "if false then",
        leases::a_zombie_cannot_settle_its_job;
    retry_cannot_be_repeated: "retry.lua" "job[1] == 'pending' and job[2] == ARGV[1]" => "false",
        put_back::repeating_a_settlement_changes_nothing;
    retry_waits_without_limit: "retry.lua" "math.min(tonumber(ARGV[3]), lease_ms)" => "tonumber(ARGV[3])",
        put_back::a_delay_longer_than_the_lease_is_the_lease;
    release_is_not_fenced: "release.lua" "if refused then" => "if false then",
        leases::a_zombie_cannot_settle_its_job;
    release_cannot_be_repeated: "release.lua" "job[1] == 'pending' and job[2] == ARGV[1]" => "false",
        put_back::repeating_a_settlement_changes_nothing;
    release_uses_an_attempt: "release.lua" "tonumber(job[4] or 0) + 1" => "tonumber(job[4] or 0)",
        put_back::a_release_uses_no_attempt;
    release_forgets_calls_that_broke_off: "release.lua" "ARGV[4] == '1'" => "false",
        put_back::calls_that_broke_off_are_counted_and_use_no_attempt;
    release_takes_every_call_for_broken: "release.lua" "ARGV[4] == '1'" => "true",
        put_back::calls_that_broke_off_are_counted_and_use_no_attempt;
    release_counts_one_broken_call: "release.lua" "tonumber(job[5] or 0) + 1" => "1",
        put_back::calls_that_broke_off_are_counted_and_use_no_attempt;
    renew_is_not_fenced: "renew.lua" "if refused then" => "if false then",
        leases::a_zombie_cannot_take_its_job_back_by_renewing;
    renew_does_nothing: "renew.lua" "claim(entry[1], ARGV[2], entry[2], 0)" => "",
        leases::a_lease_that_is_renewed_does_not_lapse;

    // How a job is given back.
    hand_back_stops_at_a_missing_group: "hold.lua" "redis.pcall('XCLAIM'" => "redis.call('XCLAIM'",
        repairs::giving_a_job_back_repairs_its_entry;
    hand_back_keeps_the_worker: "hold.lua" "claim(job.stream, WAITING, job.entry, idle)" => "claim(job.stream, 'w', job.entry, idle)",
        put_back::a_retry_is_due_after_its_delay_and_not_before;
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
    end_is_not_published: "end.lua" "  redis.call('SPUBLISH', key, status)\n" => "",
        ends::every_end_is_published_to_all_who_wait_for_it;
    end_counts_from_another_moment: "end.lua" "int(age(created_at, now))" => "0",
        ends::every_end_has_its_time;
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
    dead_letters_are_never_trimmed: "end.lua" "'MAXLEN', '~', max_dead, " => "",
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
}
