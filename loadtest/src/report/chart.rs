//! One line chart as inline SVG: no scripts, no outside resources; hovering a point shows its numbers.

use std::fmt::{self, Display, Formatter};

use super::html::Escaped;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;
/// More grid lines than this are hard to read.
const MOST_TICKS: usize = 7;

/// How values become heights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From 0.
    Linear,
    /// For latencies, where a spike would flatten everything else. Values must be above 0.
    Log,
}

/// One line of a chart.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    /// CSS class, which decides the colour in both themes.
    pub(super) class: &'static str,
    /// One value for each time; `None` leaves a gap.
    pub(super) values: Vec<Option<f64>>,
}

/// A chart over time.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) scale: Scale,
    /// Seconds since the start of the run.
    pub(super) times: Vec<f64>,
    pub(super) series: Vec<Series>,
    /// An objective, drawn as a dashed line.
    pub(super) limit: Option<f64>,
}

/// The vertical axis: its range and its grid lines.
#[derive(Debug, PartialEq)]
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Axis {
    fn linear(largest: f64) -> Self {
        let step = nice_step(largest.max(1.0) / 4.0);
        let count = (largest.max(1.0) / step).ceil();
        let ticks = (0..=count as u32).map(|tick| f64::from(tick) * step).collect();
        Self { scale: Scale::Linear, low: 0.0, high: count * step, ticks }
    }

    fn log(smallest: f64, largest: f64) -> Self {
        let steps: Vec<f64> =
            (-3..9).flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(decade))).collect();
        let low = steps.iter().copied().rfind(|step| *step <= smallest).unwrap_or(0.001);
        let high = steps.iter().copied().find(|step| *step >= largest && *step > low).unwrap_or(1e9);
        let inside: Vec<f64> = steps.into_iter().filter(|step| (low..=high).contains(step)).collect();
        let every = inside.len().div_ceil(MOST_TICKS);
        Self { scale: Scale::Log, low, high, ticks: inside.into_iter().step_by(every).collect() }
    }

    /// From 0 at the bottom to 1 at the top.
    fn share(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        share.clamp(0.0, 1.0)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.share(value) * (HEIGHT - TOP - BOTTOM)
    }
}

/// The smallest of 1, 2, 5 times a power of ten that is at least `rough`.
fn nice_step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= rough * 0.999)
        .unwrap_or(10.0 * power)
}

impl Chart {
    fn axis(&self) -> Axis {
        let values =
            self.series.iter().flat_map(|series| series.values.iter().flatten().copied()).chain(self.limit);
        let (smallest, largest) =
            values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        match self.scale {
            Scale::Linear => Axis::linear(largest),
            Scale::Log if largest > 0.0 => Axis::log(smallest, largest),
            Scale::Log => Axis::log(1.0, 10.0),
        }
    }

    fn span(&self) -> f64 {
        self.times.last().copied().unwrap_or(1.0).max(1.0)
    }

    fn x(&self, time: f64) -> f64 {
        LEFT + time / self.span() * (WIDTH - LEFT - RIGHT)
    }

    fn grid(&self, axis: &Axis, out: &mut Formatter<'_>) -> fmt::Result {
        for tick in &axis.ticks {
            let y = axis.y(*tick);
            write!(
                out,
                r#"<line class="grid" x1="{LEFT}" x2="{:.0}" y1="{y:.1}" y2="{y:.1}"/>"#,
                WIDTH - RIGHT
            )?;
            writeln!(
                out,
                r#"<text class="tick end" x="{:.0}" y="{:.1}">{}</text>"#,
                LEFT - 6.0,
                y + 4.0,
                short(*tick)
            )?;
        }
        let step = nice_step(self.span() / 6.0);
        for tick in (0..).map(|tick| f64::from(tick) * step).take_while(|tick| *tick <= self.span()) {
            let (x, y) = (self.x(tick), HEIGHT - 8.0);
            writeln!(out, r#"<text class="tick middle" x="{x:.1}" y="{y:.0}">{}s</text>"#, short(tick))?;
        }
        Ok(())
    }

    fn limit(&self, axis: &Axis, out: &mut Formatter<'_>) -> fmt::Result {
        let Some(limit) = self.limit else { return Ok(()) };
        let (y, x) = (axis.y(limit), WIDTH - RIGHT);
        write!(out, r#"<line class="limit" x1="{LEFT}" x2="{x:.0}" y1="{y:.1}" y2="{y:.1}"/>"#)?;
        writeln!(
            out,
            r#"<text class="limit-name end" x="{x:.0}" y="{:.1}">p99 objective {limit}</text>"#,
            y - 4.0
        )
    }

    /// Points with a gap before them start a new stroke; a lone point would be invisible, so it gets a dot.
    fn line(&self, series: &Series, axis: &Axis, out: &mut Formatter<'_>) -> fmt::Result {
        let points: Vec<Option<(f64, f64)>> = self
            .times
            .iter()
            .zip(&series.values)
            .map(|(time, value)| value.map(|value| (self.x(*time), axis.y(value))))
            .collect();
        write!(out, r#"<path class="line {}" d=""#, series.class)?;
        let mut pen_up = true;
        for point in &points {
            if let Some((x, y)) = point {
                write!(out, "{}{x:.1} {y:.1}", if pen_up { "M" } else { "L" })?;
            }
            pen_up = point.is_none();
        }
        writeln!(out, r#""/>"#)?;
        let lone = |index: usize| {
            points.get(index.wrapping_sub(1)).copied().flatten().is_none()
                && points.get(index + 1).copied().flatten().is_none()
        };
        for (_, (x, y)) in
            points.iter().enumerate().filter_map(|(i, p)| p.map(|p| (i, p))).filter(|(i, _)| lone(*i))
        {
            writeln!(out, r#"<circle class="dot {}" cx="{x:.1}" cy="{y:.1}" r="3"/>"#, series.class)?;
        }
        Ok(())
    }

    /// Invisible columns that show the numbers of their time when hovered.
    fn hover(&self, out: &mut Formatter<'_>) -> fmt::Result {
        for (index, time) in self.times.iter().enumerate() {
            let start = index
                .checked_sub(1)
                .and_then(|before| self.times.get(before))
                .map_or(LEFT, |time| self.x(*time));
            let width = self.x(*time) - start;
            write!(
                out,
                r#"<rect class="hover" x="{start:.1}" y="{TOP}" width="{width:.1}" height="{:.0}">"#,
                HEIGHT - TOP - BOTTOM
            )?;
            write!(out, "<title>{time:.0} s")?;
            for series in &self.series {
                if let Some(value) = series.values.get(index).copied().flatten() {
                    write!(out, "\n{}: {} {}", series.name, short(value), self.unit)?;
                }
            }
            writeln!(out, "</title></rect>")?;
        }
        Ok(())
    }
}

impl Display for Chart {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let axis = self.axis();
        write!(
            out,
            "<figure><figcaption>{} <small>{}</small><span class=\"legend\">",
            Escaped(self.title),
            Escaped(self.unit)
        )?;
        for series in &self.series {
            write!(out, "<span><i class=\"{}\"></i>{}</span>", series.class, Escaped(series.name))?;
        }
        writeln!(out, "</span></figcaption>")?;
        writeln!(
            out,
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#,
            Escaped(self.title)
        )?;
        self.grid(&axis, out)?;
        self.limit(&axis, out)?;
        self.series.iter().try_for_each(|series| self.line(series, &axis, out))?;
        self.hover(out)?;
        writeln!(out, "</svg></figure>")
    }
}

/// At most three significant digits, without zeros at the end.
fn short(value: f64) -> String {
    let digits: usize = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        small if small >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if digits == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(scale: Scale, values: Vec<Option<f64>>) -> Chart {
        let times = (1..=values.len()).map(|second| second as f64).collect();
        let series = vec![Series { name: "p99", class: "p99", values }];
        Chart { title: "Latency <b>", unit: "ms", scale, times, series, limit: Some(20.0) }
    }

    #[test]
    fn a_linear_axis_starts_at_zero_and_ends_on_a_round_number() {
        let axis = Axis::linear(173.0);
        assert_eq!(axis.ticks, [0.0, 50.0, 100.0, 150.0, 200.0]);
        assert_eq!((axis.share(0.0), axis.share(100.0), axis.share(200.0)), (0.0, 0.5, 1.0));
    }

    #[test]
    fn a_log_axis_covers_its_values_with_few_ticks() {
        let axis = Axis::log(0.3, 900.0);
        assert_eq!((axis.low, axis.high), (0.2, 1_000.0));
        assert!(axis.ticks.len() <= MOST_TICKS, "{:?}", axis.ticks);
        assert_eq!((axis.share(0.0), axis.share(1_000.0)), (0.0, 1.0));
    }

    #[test]
    fn equal_values_and_no_values_still_give_a_chart() {
        assert!(Axis::log(5.0, 5.0).high > 5.0);
        for values in [vec![], vec![None], vec![Some(0.0)]] {
            for scale in [Scale::Linear, Scale::Log] {
                let svg = chart(scale, values.clone()).to_string();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }

    #[test]
    fn a_gap_starts_a_new_stroke_and_a_lone_point_is_a_dot() {
        let svg = chart(Scale::Linear, vec![Some(1.0), Some(2.0), None, Some(3.0)]).to_string();
        let path = svg.lines().find(|line| line.contains("<path")).unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert_eq!(svg.matches("<circle").count(), 1);
    }

    #[test]
    fn text_is_escaped_and_numbers_show_on_hover() {
        let svg = chart(Scale::Log, vec![Some(12.0)]).to_string();
        assert!(svg.contains("Latency &lt;b&gt;") && !svg.contains("<b>"));
        assert!(svg.contains("p99: 12 ms"), "{svg}");
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.25, 1.5, 12.34, 1234.5].map(short);
        assert_eq!(shown, ["0", "0.25", "1.5", "12.3", "1234"]);
    }
}
