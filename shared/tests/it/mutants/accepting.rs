//! How a new job comes in.

use super::{Alteration, Altered, Queue, fails};
use crate::{clock, deadlines, inputs, models, submit, together, transitions};

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
    submit_exceeds_the_limit: "accept.lua" "depth + others >= limit then" => "depth + others > limit then",
        submit::the_limit_counts_every_job_that_has_not_ended;
    submit_knows_no_unlimited_queue: "accept.lua" "limit > 0 and depth + others" => "depth + others",
        submit::without_a_limit_the_queue_is_never_full;
    submit_exceeds_the_limit_of_a_model: "accept.lua" "depth >= limit_of_model then" => "depth > limit_of_model then",
        models::a_model_has_a_limit_of_its_own;
    submit_limits_every_model: "accept.lua" "limit_of_model > 0 and " => "",
        submit::an_accepted_job_waits_and_is_listed_newest_first;
    submit_ignores_other_models: "accept.lua" "  if limit > 0 and depth + others >= limit" => "  if limit > 0 and depth >= limit",
        models::the_limit_of_a_partition_counts_all_models;
    requeue_ignores_other_models: "requeue.lua" "tonumber(ARGV[9])" => "0",
        models::a_requeued_job_stays_with_its_model;
    requeue_ignores_the_limit_of_a_model: "requeue.lua" "tonumber(ARGV[10])" => "0",
        models::a_requeued_job_stays_with_its_model;
    jobs_forget_their_model: "accept.lua" "'m', model, " => "",
        models::jobs_of_a_model_are_claimed_from_its_streams_only;
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
    requeue_exceeds_the_limit: "requeue.lua" "tonumber(ARGV[3])" => "tonumber(ARGV[3]) + 1",
        submit::a_full_queue_takes_no_repetition;
    requeue_ignores_short_memory: "requeue.lua" "#!lua\n" => "#!lua flags=allow-oom\n",
        submit::short_memory_refuses_new_jobs_and_lets_every_other_script_work;
}
