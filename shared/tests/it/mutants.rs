//! Proof that each guard in the Lua scripts is needed and watched: with the guard changed as a row says, the
//! named behaviour fails. A row whose text is no longer in its file fails, too.

use std::{future::Future, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;
use tokio::time::timeout;

use crate::{
    altered::{Alteration, Altered},
    queue::{Queue, SOON},
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

mod accepting;
mod charges;
mod claims;
mod ends;
mod models;
mod upkeep;

async fn fails(behaviour: impl Future<Output = ()>) -> bool {
    !matches!(timeout(SOON, AssertUnwindSafe(behaviour).catch_unwind()).await, Ok(Ok(())))
}
