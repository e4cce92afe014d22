//! The run over time, for charts: one point a second. In a long run, neighbouring points are merged to bound memory.

use serde::Serialize;

use super::latency::Percentiles;

/// A timeline has at most this many points. Must be even.
const MOST_POINTS: usize = 600;
/// Shorter windows, in seconds, are joined with the one before.
const SHORTEST: f64 = 0.5;

/// The numbers of one span of time. A merged span has the latencies of its worst second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Window {
    /// From the start of the run, in seconds.
    pub(crate) start: f64,
    /// Length in seconds.
    pub(crate) seconds: f64,
    /// Scheduled submissions.
    pub(crate) intended: u64,
    /// Submissions answered 202.
    pub(crate) accepted: u64,
    /// Jobs that were first seen to have ended.
    pub(crate) ended: u64,
    /// Failed and dropped requests of every kind.
    pub(crate) errors: u64,
    /// Dropped requests of every kind.
    pub(crate) dropped: u64,
    /// Accepted jobs that have not ended; in a merged span, the largest number.
    pub(crate) backlog: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) submit: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) get: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<Percentiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) complete: Option<Percentiles>,
}

/// All windows so far; each point but the last covers `span` of them.
#[derive(Debug)]
pub(crate) struct Timeline {
    points: Vec<Window>,
    span: usize,
    in_last: usize,
}

impl Default for Timeline {
    fn default() -> Self {
        Self { points: Vec::new(), span: 1, in_last: 1 }
    }
}

impl Timeline {
    /// Adds the next second. A fraction of a second at the end of a run would have misleading rates, so it joins the last point.
    pub(crate) fn push(&mut self, window: Window) {
        match self.points.last_mut() {
            Some(last) if window.seconds < SHORTEST => *last = last.joined(&window),
            Some(last) if self.in_last < self.span => {
                *last = last.joined(&window);
                self.in_last += 1;
            }
            _ => {
                self.points.push(window);
                self.in_last = 1;
            }
        }
        if self.points.len() > MOST_POINTS {
            self.halve();
        }
    }

    fn halve(&mut self) {
        // The number of points is odd. The last one stays alone and takes the next seconds.
        self.points = self.points.chunks(2).map(Window::of_pair).collect();
        self.span *= 2;
    }

    /// Every point, oldest first.
    pub(crate) fn points(&self) -> &[Window] {
        &self.points
    }
}

impl Window {
    /// `count` as a rate.
    pub(crate) fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.seconds.max(0.001)
    }

    fn of_pair(pair: &[Self]) -> Self {
        match pair {
            [left, right] => left.joined(right),
            _ => pair.first().cloned().unwrap_or_default(),
        }
    }

    fn joined(&self, next: &Self) -> Self {
        Self {
            start: self.start,
            seconds: self.seconds + next.seconds,
            intended: self.intended + next.intended,
            accepted: self.accepted + next.accepted,
            ended: self.ended + next.ended,
            errors: self.errors + next.errors,
            dropped: self.dropped + next.dropped,
            backlog: self.backlog.max(next.backlog),
            submit: Percentiles::worst(self.submit, next.submit),
            get: Percentiles::worst(self.get, next.get),
            health: Percentiles::worst(self.health, next.health),
            complete: Percentiles::worst(self.complete, next.complete),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(index: usize) -> Window {
        let p = index as f64;
        let submit = Some(Percentiles { count: 1, p50_ms: p, p95_ms: p, p99_ms: p, max_ms: p });
        Window { start: p, seconds: 1.0, intended: 2, backlog: index as u64, submit, ..Default::default() }
    }

    #[test]
    fn a_short_run_keeps_every_second() {
        let mut timeline = Timeline::default();
        (0..MOST_POINTS).for_each(|index| timeline.push(second(index)));
        assert_eq!(timeline.points().len(), MOST_POINTS);
        assert_eq!(timeline.points()[7], second(7));
    }

    #[test]
    fn a_long_run_stays_bounded_and_loses_no_count() {
        for seconds in [601_usize, 1_200, 1_201, 10_007] {
            let mut timeline = Timeline::default();
            (0..seconds).for_each(|index| timeline.push(second(index)));
            let points = timeline.points();
            assert!(points.len() <= MOST_POINTS, "{}", points.len());
            assert_eq!(points.iter().map(|point| point.intended).sum::<u64>(), 2 * seconds as u64);
            assert_eq!(points.iter().map(|point| point.seconds).sum::<f64>(), seconds as f64);
            assert!(points.windows(2).all(|pair| pair[0].start + pair[0].seconds == pair[1].start));
        }
    }

    #[test]
    fn the_rest_of_a_second_joins_the_one_before() {
        let mut timeline = Timeline::default();
        timeline.push(second(0));
        timeline.push(Window { start: 1.0, seconds: 0.01, intended: 3, ..Default::default() });
        assert_eq!((timeline.points().len(), timeline.points()[0].intended), (1, 5));
    }

    #[test]
    fn a_merged_point_shows_its_worst_second() {
        let mut timeline = Timeline::default();
        (0..=MOST_POINTS).for_each(|index| timeline.push(second(index)));
        let first = &timeline.points()[0];
        assert_eq!((first.seconds, first.backlog), (2.0, 1));
        assert_eq!(first.submit.unwrap().p99_ms, 1.0);
        assert_eq!(first.submit.unwrap().count, 2);
    }
}
