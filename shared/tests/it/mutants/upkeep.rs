//! Memory pressure, and order in the stored data.

use super::{Alteration, Altered, Queue, fails};
use crate::{clock, submit, upkeep};

mutants! {
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
    publish_needs_memory: "publish.lua" "#!lua flags=allow-oom" => "#!lua",
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
    sweep_queues_new_jobs_twice: "sweep.lua" "is_after(entry, last)" => "false",
        upkeep::a_sweep_leaves_everything_alone_that_is_in_order;
    sweep_trusts_the_pending_list: "sweep.lua" "#redis.call('XPENDING', stream, GROUP, entry, entry, 1) == 1" => "true",
        upkeep::a_sweep_requeues_jobs_that_no_consumer_could_claim;
    sweep_misses_deleted_entries: "sweep.lua" "#redis.call('XRANGE', stream, entry, entry) == 0" => "false",
        upkeep::a_sweep_requeues_jobs_that_no_consumer_could_claim;
    sweep_repairs_ended_jobs: "sweep.lua" "elseif job[5] and not TERMINAL[job[1]] then" => "elseif job[5] then",
        upkeep::a_sweep_leaves_everything_alone_that_is_in_order;
    sweep_leaves_two_entries: "sweep.lua" "  redis.call('XDEL', job.stream, job.entry)\n" => "",
        upkeep::a_sweep_requeues_jobs_that_no_consumer_could_claim;
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
    publish_keeps_what_is_old: "publish.lua" "now - since > tonumber(ARGV[1])" => "false",
        upkeep::descriptions_stay_as_long_as_a_worker_publishes_them;
    publish_forgets_what_it_removes: "publish.lua" "redis.call('HSET', KEYS[1], model, int(now))" => "redis.call('HDEL', KEYS[1], model)",
        upkeep::removed_models_are_remembered_for_a_while;
    publish_leaves_the_time_of_a_removal_open: "publish.lua" "since == 0" => "false",
        upkeep::removed_models_are_remembered_for_a_while;
    publish_remembers_removals_for_ever: "publish.lua" "now - since > tonumber(ARGV[2])" => "false",
        upkeep::removed_models_are_remembered_for_a_while;
    workers_lists_the_dead: "workers.lua" " and now - tonumber(seen) <= tonumber(ARGV[1])" => "",
        upkeep::workers_live_as_long_as_they_are_heard;
}
