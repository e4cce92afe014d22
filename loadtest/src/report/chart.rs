//! A chart of the page: lines over time as inline SVG, without scripts. Hovering over a point shows its numbers.

use std::fmt::{self, Display, Formatter};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = WIDTH - 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = HEIGHT - 26.0;

/// A chart over time.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    /// A logarithmic axis, for latencies: on a linear one, a spike would flatten everything else.
    pub(super) is_log: bool,
    /// Seconds since the start of the run.
    pub(super) times: Vec<f64>,
    pub(super) lines: Vec<Line>,
    /// An objective, drawn as a dashed line.
    pub(super) limit: Option<f64>,
}

/// One line: its name, which is also the CSS class that decides the colour, and a value for each time; `None` is a gap.
pub(super) type Line = (&'static str, Vec<Option<f64>>);

/// Round numbers, and where they and the values between them are in the picture.
struct Axis {
    ticks: Vec<f64>,
    is_log: bool,
    start: f64,
    end: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let scaled = |value: f64| if self.is_log { value.log10() } else { value };
        let [low, high] = [self.ticks.first(), self.ticks.last()].map(|tick| scaled(*tick.unwrap_or(&1.0)));
        self.start + ((scaled(value) - low) / (high - low)).clamp(0.0, 1.0) * (self.end - self.start)
    }
}

/// Multiples of 1, 2 or 5 times a power of ten, from 0 to the first that is at least `largest`.
fn linear_ticks(largest: f64) -> Vec<f64> {
    let power = 10_f64.powf((largest / 4.0).log10().floor());
    let step = [1.0, 2.0, 5.0].map(|digit| digit * power).into_iter().find(|step| *step >= largest / 4.0);
    let step = step.unwrap_or(10.0 * power);
    (0..=(largest / step).ceil() as u32).map(|tick| f64::from(tick) * step).collect()
}

/// From the last power of ten that is at most `smallest` to the first that is at least `largest`.
fn log_ticks(smallest: f64, largest: f64) -> Vec<f64> {
    let low = smallest.max(0.001).log10().floor() as i32;
    let high = (largest.log10().ceil() as i32).max(low + 1);
    let digits: &[f64] = if high - low > 2 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let ticks = (low..high).flat_map(|power| digits.iter().map(move |digit| digit * 10_f64.powi(power)));
    ticks.chain([10_f64.powi(high)]).collect()
}

impl Chart {
    fn axes(&self) -> (Axis, Axis) {
        let values = self.lines.iter().flat_map(|(_, values)| values).flatten().copied().chain(self.limit);
        let largest = values.clone().fold(1.0, f64::max);
        let ticks = if self.is_log {
            log_ticks(values.fold(largest, f64::min), largest)
        } else {
            linear_ticks(largest)
        };
        let across = linear_ticks(self.times.last().copied().unwrap_or(1.0));
        (
            Axis { ticks: across, is_log: false, start: LEFT, end: RIGHT },
            Axis { ticks, is_log: self.is_log, start: BOTTOM, end: TOP },
        )
    }

    /// The path of a line. A gap starts a new stroke, with a line of no length whose round cap makes a lone point visible.
    fn path(&self, values: &[Option<f64>], across: &Axis, up: &Axis) -> String {
        let mut next = "M";
        let mut path = String::new();
        for (time, value) in self.times.iter().zip(values) {
            if let Some(value) = value {
                path += &format!("{next}{:.1} {:.1}", across.place(*time), up.place(*value));
                path += if next == "M" { "h0" } else { "" };
            }
            next = if value.is_some() { "L" } else { "M" };
        }
        path
    }

    fn grid(&self, across: &Axis, up: &Axis) -> String {
        let mut grid = String::new();
        for (y, tick) in up.ticks.iter().map(|tick| (up.place(*tick), rounded(*tick))) {
            grid += &format!(r#"<path class="grid" d="M{LEFT} {y:.1}H{RIGHT}"/>"#);
            grid += &format!(r#"<text class="tick end" x="{LEFT}" y="{y:.1}" dx="-6" dy="4">{tick}</text>"#);
        }
        for (x, tick) in across.ticks.iter().map(|tick| (across.place(*tick), rounded(*tick))) {
            grid += &format!(r#"<text class="tick middle" x="{x:.1}" y="{BOTTOM}" dy="18">{tick}s</text>"#);
        }
        if let Some((limit, y)) = self.limit.map(|limit| (limit, up.place(limit))) {
            grid += &format!(r#"<path class="limit" d="M{LEFT} {y:.1}H{RIGHT}"/>"#);
            let name = format!("p99 objective {limit}");
            grid += &format!(r#"<text class="limit-name end" x="{RIGHT}" y="{y:.1}" dy="-4">{name}</text>"#);
        }
        grid
    }

    /// Invisible columns, each with the numbers of its time.
    fn columns(&self, across: &Axis) -> String {
        let (mut start, mut columns) = (LEFT, String::new());
        for (index, time) in self.times.iter().enumerate() {
            let end = across.place(*time);
            let path = format!("M{start:.1} {TOP}H{end:.1}V{BOTTOM}H{start:.1}");
            columns += &format!(r#"<path class="hover" d="{path}"><title>{time:.0} s"#);
            for (name, values) in &self.lines {
                let value = values.get(index).copied().flatten().map(rounded);
                columns += &value.map_or(String::new(), |value| format!("\n{name}: {value} {}", self.unit));
            }
            columns += "</title></path>\n";
            start = end;
        }
        columns
    }
}

impl Display for Chart {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let (title, (across, up)) = (self.title, self.axes());
        write!(out, r#"<figure><figcaption>{title} <small>{}</small><span class="legend">"#, self.unit)?;
        for (name, _) in &self.lines {
            write!(out, r#"<span><i class="{name}"></i>{name}</span>"#)?;
        }
        writeln!(out, "</span></figcaption>")?;
        writeln!(out, r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">"#)?;
        writeln!(out, "{}", self.grid(&across, &up))?;
        for (name, values) in &self.lines {
            writeln!(out, r#"<path class="line {name}" d="{}"/>"#, self.path(values, &across, &up))?;
        }
        writeln!(out, "{}</svg></figure>", self.columns(&across))
    }
}

/// To the thousandth.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(is_log: bool, values: Vec<Option<f64>>) -> Chart {
        let times = (1..=values.len()).map(|second| second as f64).collect();
        Chart { title: "Latency", unit: "ms", is_log, times, lines: vec![("p99", values)], limit: Some(20.0) }
    }

    fn axis(is_log: bool, low: f64, high: f64) -> Axis {
        Chart { limit: None, ..chart(is_log, vec![Some(low), Some(high)]) }.axes().1
    }

    #[test]
    fn a_linear_axis_starts_at_zero_and_ends_on_a_round_number() {
        let axis = axis(false, 3.0, 173.0);
        assert_eq!(axis.ticks, [0.0, 50.0, 100.0, 150.0, 200.0]);
        let middle = (TOP + BOTTOM) / 2.0;
        assert_eq!([0.0, 100.0, 200.0].map(|value| axis.place(value)), [BOTTOM, middle, TOP]);
    }

    #[test]
    fn a_log_axis_covers_its_values() {
        let axis = axis(true, 0.3, 900.0);
        assert_eq!(axis.ticks, [0.1, 1.0, 10.0, 100.0, 1_000.0]);
        let middle = (TOP + BOTTOM) / 2.0;
        assert_eq!([0.0, 0.1, 10.0, 1_000.0].map(|value| axis.place(value)), [BOTTOM, BOTTOM, middle, TOP]);
    }

    #[test]
    fn equal_values_and_no_values_still_give_a_chart() {
        assert_eq!(axis(true, 100.0, 100.0).ticks, [100.0, 200.0, 500.0, 1_000.0]);
        for values in [vec![], vec![None], vec![Some(0.0)]] {
            for is_log in [false, true] {
                let svg = chart(is_log, values.clone()).to_string();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }

    #[test]
    fn a_gap_starts_a_new_stroke_and_a_lone_point_is_a_dot() {
        let svg = chart(false, vec![Some(1.0), Some(2.0), None, Some(3.0)]).to_string();
        let path = svg.lines().find(|line| line.contains("class=\"line")).unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert!(path.ends_with("h0\"/>"), "{path}");
    }

    #[test]
    fn numbers_show_on_hover() {
        let svg = chart(true, vec![Some(12.3456)]).to_string();
        assert!(svg.contains("p99: 12.346 ms"), "{svg}");
    }
}
