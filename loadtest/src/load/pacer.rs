//! The thread that waits for the scheduled time of each request. The timer of the async runtime would be up to a
//! millisecond late, and every latency would include that.

use std::iter::Peekable;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use super::arrivals::Arrivals;
use crate::measure::totals::Operation;
use crate::stop::Stop;

/// One request to send now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) operation: Operation,
    /// The scheduled time. Latency counts from here, however late the request is sent.
    pub(crate) intended: Instant,
}

/// Merges several schedules that start together.
#[derive(Debug)]
pub(crate) struct Pacer {
    start: Instant,
    end: Instant,
    streams: Vec<(Operation, Peekable<Arrivals>)>,
}

impl Pacer {
    /// Schedules that start now and last `length`.
    pub(crate) fn new(length: Duration, streams: Vec<(Operation, Arrivals)>) -> Self {
        let start = Instant::now();
        let streams =
            streams.into_iter().map(|(operation, arrivals)| (operation, arrivals.peekable())).collect();
        Self { start, end: start + length, streams }
    }

    /// Blocks until the schedules end or `stop` is raised, and sends each arrival to the channel at its time. When the receiver
    /// is slow, arrivals are late but keep their intended times.
    pub(crate) fn run(mut self, sender: &Sender<Arrival>, stop: &Stop) {
        while let Some(arrival) = self.next() {
            if !stop.sleep_until(arrival.intended) || sender.blocking_send(arrival).is_err() {
                return;
            }
        }
        stop.sleep_until(self.end);
    }

    fn next(&mut self) -> Option<Arrival> {
        let heads = self.streams.iter_mut().filter_map(|(operation, arrivals)| {
            let offset = *arrivals.peek()?;
            Some((offset, *operation, arrivals))
        });
        let (offset, operation, arrivals) = heads.min_by_key(|(offset, ..)| *offset)?;
        arrivals.next();
        Some(Arrival { operation, intended: self.start + offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::arrivals::Spacing;

    fn uniform(per_second: f64, length: Duration) -> Arrivals {
        Arrivals::new(Spacing::Uniform, per_second, length, fastrand::Rng::with_seed(1))
    }

    #[test]
    fn streams_are_merged_in_time_order() {
        let length = Duration::from_secs(1);
        let streams =
            vec![(Operation::Submit, uniform(5.0, length)), (Operation::Health, uniform(2.0, length))];
        let mut pacer = Pacer::new(length, streams);
        let merged: Vec<_> = std::iter::from_fn(|| pacer.next()).collect();
        assert_eq!(merged.len(), 7);
        assert!(merged.windows(2).all(|pair| pair[0].intended <= pair[1].intended));
        assert_eq!(merged.iter().filter(|arrival| arrival.operation == Operation::Health).count(), 2);
    }

    #[test]
    fn a_slow_receiver_gets_every_arrival_with_its_intended_time() {
        let length = Duration::from_millis(20);
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let pacer = Pacer::new(length, vec![(Operation::Submit, uniform(1_000.0, length))]);
        let start = pacer.start;
        let thread = std::thread::spawn(move || pacer.run(&sender, &Stop::default()));
        let received: Vec<_> = std::iter::from_fn(|| receiver.blocking_recv()).collect();
        thread.join().unwrap();
        let offsets: Vec<_> = received.iter().map(|arrival| arrival.intended - start).collect();
        assert_eq!(offsets, (0..20).map(Duration::from_millis).collect::<Vec<_>>());
    }

    #[test]
    fn a_raised_stop_ends_the_schedule() {
        let length = Duration::from_secs(600);
        let (sender, _receiver) = tokio::sync::mpsc::channel(10);
        let stop = Stop::default();
        stop.raise();
        Pacer::new(length, vec![(Operation::Submit, uniform(1.0, length))]).run(&sender, &stop);
    }
}
