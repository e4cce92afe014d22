//! What payers keep.

use super::{Alteration, Altered, Queue, fails};
use crate::{quota, recount};

mutants! {
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
}
