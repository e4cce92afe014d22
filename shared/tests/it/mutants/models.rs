//! What keeps the models of a partition apart.

use super::{Alteration, Altered, Queue, fails};
use crate::{models, upkeep};

mutants! {
    // Whose stream it is.
    submit_takes_any_model: "submit.lua" "accept(job, id, ARGV[5], " => "accept(job, id, 'iris', ",
        models::jobs_of_a_model_are_claimed_from_its_streams_only;
    requeue_takes_any_model: "requeue.lua" "accept(KEYS[1], ARGV[1], ARGV[8], " => "accept(KEYS[1], ARGV[1], 'iris', ",
        models::a_job_keeps_its_model_when_it_ends;
    ended_jobs_forget_their_model: "end.lua" "'HDEL', key, 'input', " => "'HDEL', key, 'm', 'input', ",
        models::a_job_keeps_its_model_when_it_ends;
    claims_name_any_stream: "grant.lua" "jobs[at + 2] = number" => "jobs[at + 2] = 1",
        models::one_call_claims_jobs_of_several_models_in_the_order_of_the_streams;
    failures_name_any_stream: "grant.lua" "table.insert(grants.ended, { id, why.code, number })" => "table.insert(grants.ended, { id, why.code, 1 })",
        models::a_claim_fails_and_clears_away_jobs_of_the_right_model;
    grant_takes_any_stream: "grant.lua" "local stream, key = grants.streams[number]" => "local stream, key = grants.streams[1]",
        models::a_claim_fails_and_clears_away_jobs_of_the_right_model;
    what_is_left_goes_to_any_stream: "grant.lua" "local arguments = { grants.streams[number]," => "local arguments = { grants.streams[1],",
        models::what_a_start_leaves_stays_with_its_model;
    take_undelivers_in_any_stream: "take.lua" "local stream = grants.streams[number]\n  local moved" => "local stream = grants.streams[1]\n  local moved",
        models::what_a_claim_leaves_stays_with_its_model;
    take_makes_the_group_of_any_stream: "take.lua" "'CREATE', grants.streams[number]" => "'CREATE', grants.streams[1]",
        models::one_call_claims_jobs_of_several_models_in_the_order_of_the_streams;
    take_searches_all_models_from_one_place: "take.lua" "ARGV[9 + number]" => "ARGV[10]",
        models::a_search_for_due_jobs_goes_on_in_each_model_where_it_stopped;
    renew_takes_any_stream: "renew.lua" "KEYS[tonumber(ARGV[i + 2])]" => "KEYS[1]",
        models::a_renewal_of_jobs_of_several_models_finds_all_of_them;
    prune_takes_any_stream: "prune.lua" "'DELCONSUMER', consumer[1]" => "'DELCONSUMER', KEYS[1]",
        models::consumers_of_dead_workers_go_from_every_model;

    // What belongs to each model.
    sweep_takes_all_models_for_delivered_alike: "sweep.lua" "  if delivered[stream] == nil then\n    delivered[stream] = read_last_delivered(stream) or false\n  end\n  return delivered[stream]" => "  delivered.any = delivered.any or read_last_delivered(string.gsub(stream, ':stream:.*:', ':stream:iris:')) or false\n  return delivered.any",
        models::a_sweep_knows_how_far_each_model_was_delivered;
    publish_mixes_up_the_descriptions: "publish.lua" "int(now) .. ' ' .. ARGV[i + 1]" => "int(now) .. ' ' .. ARGV[4]",
        upkeep::each_model_has_its_own_description;
    models_share_the_job_that_runs_alone: "grant.lua" "model_key(stream, 'alone')" => "model_key('{q:0}:stream:all:high', 'alone')",
        models::jobs_whose_lone_call_broke_off_wait_for_those_of_their_own_model_only;
    models_share_dead_letters: "end.lua" "model_key(job.stream, 'dead')" => "string.match(job.stream, '^(.-}:)') .. 'dead:all'",
        models::dead_letters_are_kept_for_each_model;
    cancel_takes_any_stream: "cancel.lua" "stream_of(ARGV[4], job[6], job[3])" => "stream_of(ARGV[4], 'iris', job[3])",
        models::every_script_finds_the_stream_of_a_job;
    expire_takes_any_stream: "expire.lua" "stream_of(ARGV[5], job[10], job[3])" => "stream_of(ARGV[5], 'iris', job[3])",
        models::every_script_finds_the_stream_of_a_job;
    sweep_takes_any_stream: "sweep.lua" "stream_of(ARGV[6], job[5], job[3])" => "stream_of(ARGV[6], 'iris', job[3])",
        models::a_sweep_repairs_jobs_of_every_model;
}
