//! The attacks. Each tries for its whole time to take resources of others: memory, processors, connections, storage.

mod bodies;
mod connections;
mod grpc;
mod tensorflow;
mod work;

use std::sync::Arc;

use clap::{ValueEnum, builder::PossibleValue};

use super::{
    field::{Field, Orders},
    tally::{Summary, Tally},
};

/// An attack. Its name is the variant in kebab case. Users read the comments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Attack {
    /// the largest bodies, with a long name and a member repeated 21 times
    RepeatedMembers,
    /// lookups of one large job's id, a hundred times; the answers are not read
    RepeatedIds,
    /// lookups of 80 large jobs, 8 MiB; the answers are not read
    LargeAnswers,
    /// batches of 100 and 1,000 times 0
    Zeros,
    /// 90 of the largest bodies from each address, all but their last byte
    LargeBodies,
    /// the largest bodies, lists of empty objects
    WideJson,
    /// one address, 400 connections on 200 slots, bodies that are refused, byte by byte
    RefusedBodies,
    /// paths and methods that do not exist, 50 in a pipeline
    Unmatched,
    /// lookups of 1,000 ids
    Lookups,
    /// listings that scan 10,000 entries
    Listings,
    /// /openapi.json, 200 in a pipeline, 100 connections
    Contract,
    /// /metrics and /health, 200 in a pipeline, 100 connections
    Probes,
    /// 2,000 event streams on one large job, which then runs
    Streams,
    /// 1,800 waits of 60 s for one job, which then runs
    Waits,
    /// 2,000 heads, byte by byte
    SlowHeads,
    /// 2,000 heads of 64 KiB that do not end
    EndlessHeads,
    /// 1,000 bodies, byte by byte
    SlowBodies,
    /// 12,000 connections on 3,000 slots that send no request
    Idle,
    /// connections that are opened and closed
    Churn,
    /// bytes that are not HTTP, after a good request
    Garbage,
    /// one address, the largest jobs, each cancelled at once
    Storage,
    /// submissions far beyond the limit, 20 in a pipeline
    Flood,
    /// calls of the Open Inference Protocol whose clients go away at once
    AbandonedCalls,
    /// gRPC: 100 calls at a time on each of 100 connections
    GrpcCalls,
    /// gRPC: messages that say they have 4 GiB, and go on until they are refused
    GrpcMessages,
    /// gRPC: headers that do not end
    GrpcHeads,
    /// gRPC: calls that are reset at once
    GrpcResets,
    /// /v1: the largest bodies, rows and columns of one digit each, whose ends are wrong
    V1Numbers,
    /// /v1: the largest bodies, texts in base64, of which the last is wrong
    V1Base64,
    /// all of these at once, each from four addresses of its own
    Everything,
}

use Attack::*;

/// `MAX_CONNECTIONS` for attacks that use all connections; as in the first measurement.
const FEW_CONNECTIONS: &str = "200";
/// A rate limit holds for a minute, so it is judged over a longer time, s.
const MORE_THAN_A_MINUTE: f64 = 70.0;

impl Attack {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied()
    }

    pub(super) fn name(self) -> String {
        self.about().get_name().to_owned()
    }

    /// A description of the attack.
    pub(super) fn what(self) -> String {
        self.about().get_help().map(ToString::to_string).unwrap_or_default()
    }

    fn about(self) -> PossibleValue {
        self.to_possible_value().expect("no attack is hidden")
    }

    /// Settings of the proxy that differ from the composition's.
    pub(super) fn settings(self) -> Option<(&'static str, &'static str)> {
        (self == RefusedBodies).then_some(("MAX_CONNECTIONS", FEW_CONNECTIONS))
    }

    /// How long it must last, if not as long as the others.
    pub(super) fn seconds(self, wanted: f64, is_short: bool) -> f64 {
        if self == Flood && !is_short { wanted.max(MORE_THAN_A_MINUTE) } else { wanted }
    }

    async fn run(self, field: &Field) {
        if self == Everything { everything(field).await } else { self.run_alone(field).await }
    }

    async fn run_alone(self, field: &Field) {
        match self {
            RepeatedMembers => bodies::repeated_members(field).await,
            RepeatedIds => work::repeated_ids(field).await,
            LargeAnswers => work::large_answers(field).await,
            Zeros => bodies::zeros(field).await,
            LargeBodies => bodies::held(field).await,
            WideJson => bodies::wide(field).await,
            RefusedBodies => bodies::refused(&field.alone()).await,
            Unmatched => work::unmatched(field).await,
            Lookups => work::lookups(field).await,
            Listings => work::listings(field).await,
            Contract => work::contract(field).await,
            Probes => work::probes(field).await,
            Streams => connections::streams(field).await,
            Waits => work::waits(field).await,
            SlowHeads => connections::slow_heads(field).await,
            EndlessHeads => connections::endless_heads(field).await,
            SlowBodies => bodies::slow(field).await,
            Idle => connections::idle(field).await,
            Churn => connections::churn(field).await,
            Garbage => connections::garbage(field).await,
            Storage => bodies::storage(&field.alone()).await,
            Flood => work::flood(field).await,
            AbandonedCalls => work::abandoned_calls(field).await,
            GrpcCalls => grpc::calls(field).await,
            GrpcMessages => grpc::messages(field).await,
            GrpcHeads => grpc::heads(field).await,
            GrpcResets => grpc::resets(field).await,
            V1Numbers => tensorflow::numbers(field).await,
            V1Base64 => tensorflow::base64(field).await,
            // It consists of the others.
            Everything => {}
        }
    }
}

/// Carries out orders; for a process of its own.
///
/// # Panics
/// When there is no such attack.
pub(super) async fn attack(orders: &Orders) -> Summary {
    let attack = Attack::all().find(|attack| attack.name() == orders.attack);
    let tally = Arc::new(Tally::new());
    let field = Field::new(orders, Arc::clone(&tally));
    attack.expect("the name of an attack").run(&field).await;
    tally.summary()
}

async fn everything(field: &Field) {
    let others: Vec<_> = Attack::all().filter(|attack| *attack != Everything).collect();
    let mut all = tokio::task::JoinSet::new();
    for (number, attack) in others.into_iter().enumerate() {
        let field = field.elsewhere(number);
        all.spawn(async move { attack.run_alone(&field).await });
    }
    while let Some(done) = all.join_next().await {
        done.expect("an attack does not panic");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attack_says_what_it_does() {
        let said: Vec<_> = Attack::all().map(|attack| (attack.name(), attack.what())).collect();
        assert!(said.iter().all(|(_, what)| !what.is_empty()), "{said:?}");
        assert!(said.iter().any(|(name, _)| name == "repeated-members"));
    }

    #[test]
    fn a_limit_is_watched_for_more_than_a_minute() {
        assert!(Flood.seconds(20.0, false) > 60.0);
        assert_eq!((Flood.seconds(2.0, true), Churn.seconds(20.0, false)), (2.0, 20.0));
    }
}
