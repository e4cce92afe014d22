//! Owners: a job keeps its owner for life, and does not exist for others.

use tepal_shared::{
    job::{JobId, JobStatus, NewJob, owner::View},
    queue::intake::{Cancelled, Origin, Requeued},
};

use crate::queue::{ANYONE, Queue, new_job};

const ANNS: View<'_> = View::Owner("ann");
const BOBS: View<'_> = View::Owner("bob");

/// A job of Ann, and one without an owner.
async fn submit_both(queue: &Queue) -> [JobId; 2] {
    let anns = NewJob { owner: Some("ann".to_owned()), ..new_job() };
    [queue.submit_job(&anns).await, queue.submit().await]
}

pub(crate) async fn an_owner_is_stored_with_the_job_and_in_the_log(queue: &Queue) {
    let [anns, nobodys] = submit_both(queue).await;

    assert_eq!(queue.job(anns).await.owner.as_deref(), Some("ann"));
    assert_eq!(queue.job(nobodys).await.owner, None);
    assert_eq!(queue.field(nobodys, "owner").await, None);
    let log = queue.store.views.log(None, 10).await.unwrap().entries;
    let listed: Vec<_> = log.iter().map(|entry| (entry.id, entry.owner.as_deref())).collect();
    assert_eq!(listed, [(nobodys, None), (anns, Some("ann"))]);

    queue.store.intake.cancel(anns, ANNS).await.unwrap();
    assert_eq!(queue.job(anns).await.owner.as_deref(), Some("ann"));
}

pub(crate) async fn only_who_sees_a_job_can_cancel_it(queue: &Queue) {
    let [anns, nobodys] = submit_both(queue).await;
    let before = queue.all_keys().await;
    for (id, view) in [(anns, BOBS), (anns, View::Unowned), (nobodys, ANNS)] {
        assert_eq!(queue.store.intake.cancel(id, view).await.unwrap(), Cancelled::Missing, "{view:?}");
    }
    assert_eq!(queue.all_keys().await, before);

    let another = submit_both(queue).await[0];
    for (id, view) in [(anns, ANNS), (nobodys, View::Unowned), (another, View::All)] {
        assert_eq!(
            queue.store.intake.cancel(id, view).await.unwrap(),
            Cancelled::Done(Some(crate::queue::model())),
            "{view:?}"
        );
        assert_eq!(queue.job(id).await.status, JobStatus::Cancelled);
    }
    // Its outcome is hidden from others, too.
    assert_eq!(queue.store.intake.cancel(anns, BOBS).await.unwrap(), Cancelled::Missing);
}

pub(crate) async fn only_who_sees_a_job_can_repeat_it_and_its_owner_stays(queue: &Queue) {
    let [anns, nobodys] = submit_both(queue).await;
    let as_one_who_sees = |view| Origin { view, ..ANYONE };
    for id in [anns, nobodys] {
        let unfinished = queue.store.intake.requeue(id, JobId::new(0), as_one_who_sees(BOBS)).await.unwrap();
        assert_eq!(unfinished, Requeued::Missing);
        queue.store.intake.cancel(id, View::All).await.unwrap();
    }
    let before = queue.all_keys().await;
    for (id, view) in [(anns, BOBS), (anns, View::Unowned), (nobodys, BOBS)] {
        let requeued = queue.store.intake.requeue(id, JobId::new(0), as_one_who_sees(view)).await.unwrap();
        assert_eq!(requeued, Requeued::Missing, "{view:?}");
    }
    assert_eq!(queue.all_keys().await, before);

    for (old, view, owner) in
        [(anns, ANNS, Some("ann")), (anns, View::All, Some("ann")), (nobodys, View::Unowned, None)]
    {
        let id = JobId::new(0);
        let requeued = queue.store.intake.requeue(old, id, as_one_who_sees(view)).await.unwrap();
        assert_eq!(requeued, Requeued::Accepted, "{view:?}");
        assert_eq!(queue.job(id).await.owner.as_deref(), owner);
        let newest = queue.store.views.log(None, 1).await.unwrap().entries.remove(0);
        assert_eq!((newest.id, newest.owner.as_deref()), (id, owner));
    }
}

as_tests![
    an_owner_is_stored_with_the_job_and_in_the_log,
    only_who_sees_a_job_can_cancel_it,
    only_who_sees_a_job_can_repeat_it_and_its_owner_stays,
];
