//! One comparison for each value of the option that `--vary` names: as a table, as JSON, and as lines.
//!
//! Invariant: the lines go through the medians, and a vertical line at each goes from the minimum to the maximum.
//!
//! Deliberately absent: interpolation. The values are drawn at equal distances.

use std::fmt;

use comfy_table::{presets, CellAlignment, Table};
use serde::Serialize;

use super::summary::{shown, Comparison, Spread};
use super::svg::{put, text, COLOURS};

/// Sizes, in pixels.
const WIDTH: f64 = 760.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 160.0;
const HEAD: f64 = 44.0;
const PANEL: f64 = 230.0;
const PLOT: f64 = 170.0;
const ROW: f64 = 20.0;

/// One value.
#[derive(Clone, Debug, Serialize)]
struct Point {
    value: u32,
    #[serde(flatten)]
    comparison: Comparison,
}

/// All values.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Curve {
    varied: &'static str,
    /// At least one, each of the same targets.
    points: Vec<Point>,
}

impl Curve {
    /// A curve of at least one value.
    pub(super) fn new(
        varied: &'static str,
        points: impl Iterator<Item = (u32, Comparison)>,
    ) -> Self {
        let points = points.map(|(value, comparison)| Point { value, comparison }).collect();
        Self { varied, points }
    }

    /// Whether nothing went wrong.
    pub(super) fn is_clean(&self) -> bool {
        self.points.iter().all(|point| point.comparison.is_clean())
    }

    fn title(&self) -> String {
        let Comparison { settings, rounds, .. } = &self.points[0].comparison;
        format!("by {} (of the first: {settings}), {rounds} rounds in turn", self.varied)
    }

    /// A figure of a target at each value.
    fn line(&self, target: usize, figure: usize) -> impl Iterator<Item = Spread> + '_ {
        self.points.iter().map(move |point| point.comparison.targets[target].figures()[figure].1)
    }

    /// The whole picture.
    pub(super) fn draw(&self) -> String {
        let first = &self.points[0].comparison.targets;
        let figures = first[0].figures();
        let height = HEAD + PANEL * figures.len() as f64;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" \
             font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        text(&mut svg, 10.0, 26.0, &self.title());
        for (figure, (name, _, micros)) in figures.into_iter().enumerate() {
            let top = HEAD + PANEL * figure as f64 + ROW;
            text(&mut svg, 10.0, top - 17.0, name);
            self.draw_axes(&mut svg, top, figure, micros);
            for (target, summary) in first.iter().enumerate() {
                let colour = COLOURS[target % COLOURS.len()];
                self.draw_line(&mut svg, top, (target, figure), colour);
                let (x, y) = (WIDTH - RIGHT + 20.0, top + ROW * (target as f64 + 0.5));
                put(
                    &mut svg,
                    format_args!(
                        "<path d=\"M{x:.1} {y:.1}h14\" stroke=\"{colour}\" stroke-width=\"3\"/>"
                    ),
                );
                text(&mut svg, x + 20.0, y + 5.0, &summary.name);
            }
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn most(&self, figure: usize) -> f64 {
        let targets = 0..self.points[0].comparison.targets.len();
        let all = targets.flat_map(|target| self.line(target, figure));
        all.map(|spread| spread.max).fold(f64::MIN_POSITIVE, f64::max)
    }

    fn x(&self, at: usize) -> f64 {
        let gaps = self.points.len().max(2) - 1;
        LEFT + 20.0 + (WIDTH - LEFT - RIGHT - 40.0) * at as f64 / gaps as f64
    }

    fn draw_axes(&self, svg: &mut String, top: f64, figure: usize, micros: bool) {
        let (bottom, right) = (top + PLOT, WIDTH - RIGHT);
        let most = self.most(figure);
        for share in [0.0, 0.5, 1.0] {
            let y = bottom - PLOT * share;
            put(svg, format_args!("<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#cccccc\"/>"));
            text(svg, 10.0, y + 5.0, &shown(most * share, micros));
        }
        for (at, point) in self.points.iter().enumerate() {
            text(svg, self.x(at) - 8.0, bottom + 18.0, &point.value.to_string());
        }
    }

    fn draw_line(
        &self,
        svg: &mut String,
        top: f64,
        (target, figure): (usize, usize),
        colour: &str,
    ) {
        let most = self.most(figure);
        let y = |value: f64| top + PLOT * (1.0 - value / most);
        let mut path = String::new();
        for (at, spread) in self.line(target, figure).enumerate() {
            let (x, least, middle, most) =
                (self.x(at), y(spread.min), y(spread.median), y(spread.max));
            path.push_str(if at == 0 { "M" } else { "L" });
            path.push_str(&format!("{x:.1} {middle:.1}"));
            put(
                svg,
                format_args!("<path d=\"M{x:.1} {least:.1}V{most:.1}\" stroke=\"{colour}\"/>"),
            );
            put(
                svg,
                format_args!(
                    "<circle cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"3\" fill=\"{colour}\"/>"
                ),
            );
        }
        put(
            svg,
            format_args!(
                "<path d=\"{path}\" stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\"/>"
            ),
        );
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title())?;
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        let figures = self.points[0].comparison.targets[0].figures();
        let head =
            [self.varied, "target"].into_iter().chain(figures.iter().map(|(name, ..)| *name));
        table.set_header(head);
        for Point { value, comparison } in &self.points {
            for target in &comparison.targets {
                let medians =
                    target.figures().map(|(_, spread, micros)| shown(spread.median, micros));
                let row = [value.to_string(), target.name.clone()].into_iter().chain(medians);
                table.add_row(row);
            }
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for line in table.lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        for Point { value, comparison } in &self.points {
            for trouble in comparison.troubles() {
                writeln!(f, "{} {value}: {trouble}", self.varied)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::comparison;
    use super::*;

    fn curve() -> Curve {
        let points = [(1, [1000.0, 500.0]), (64, [2000.0, 400.0]), (256, [4000.0, 300.0])];
        Curve::new("window", points.into_iter().map(|(value, two)| (value, comparison(&two))))
    }

    #[test]
    fn each_value_has_a_row_for_each_target() {
        let text = curve().to_string();
        let rows: Vec<Vec<&str>> =
            text.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows.len(), 6, "{text}");
        assert_eq!(rows[0][..3], ["1", "t<0>", "1000"]);
        assert_eq!(rows[5][..3], ["256", "t<1>", "300"]);
        let json = serde_json::to_value(curve()).unwrap();
        assert_eq!(json["points"][1]["value"], 64);
        assert_eq!(json["points"][1]["targets"][1]["acknowledged_per_second"]["median"], 400.0);
    }

    #[test]
    fn lines_rise_and_fall_with_what_they_stand_for() {
        let svg = curve().draw();
        let heights: Vec<f64> = svg
            .lines()
            .filter_map(|line| line.split("cy=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        assert_eq!(heights.len(), 4 * 2 * 3, "four figures of two targets at three values");
        assert!(heights[0] > heights[1] && heights[1] > heights[2], "up is more: {heights:?}");
        assert!(heights[3] < heights[4] && heights[4] < heights[5], "{heights:?}");
        assert!(svg.contains("t&lt;1&gt;") && !svg.contains("t<1>"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }
}
