//! Draws a comparison: for each figure a bar per target at its median, with a line from minimum to maximum.
//!
//! Invariant: the drawing is well-formed whatever the targets' names, and self-contained.
//!
//! Deliberately absent: axes with ticks. The numbers are next to the bars.

use std::fmt::Write as _;

use super::summary::{shown, Comparison, Spread};

/// Sizes, in pixels.
const WIDTH: f64 = 760.0;
const NAMES: f64 = 150.0;
const NUMBERS: f64 = 210.0;
const BARS: f64 = WIDTH - NAMES - NUMBERS;
const ROW: f64 = 24.0;
const HEAD: f64 = 44.0;
const TITLE: f64 = 34.0;

/// One colour per target; they repeat.
pub(super) const COLOURS: [&str; 6] =
    ["#c2571a", "#2b6ca3", "#4f8a3c", "#8a5fa8", "#a8892b", "#6b6b6b"];

/// Escapes text for XML.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // Control characters are not allowed in XML.
            character if character.is_control() => escaped.push(' '),
            character => escaped.push(character),
        }
    }
    escaped
}

/// The whole picture.
pub(super) fn draw(comparison: &Comparison) -> String {
    let panels = comparison.targets[0].figures();
    let panel = TITLE + ROW * comparison.targets.len() as f64;
    let height = HEAD + panel * panels.len() as f64 + ROW;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let title = format!("{}, {} rounds", comparison.settings, comparison.rounds);
    text(&mut svg, 10.0, 26.0, &title);
    for (at, (name, _, micros)) in panels.into_iter().enumerate() {
        let top = HEAD + panel * at as f64;
        text(&mut svg, 10.0, top + TITLE - 12.0, name);
        let spreads: Vec<Spread> =
            comparison.targets.iter().map(|target| target.figures()[at].1).collect();
        let most = spreads.iter().map(|spread| spread.max).fold(f64::MIN_POSITIVE, f64::max);
        for (number, (target, spread)) in comparison.targets.iter().zip(spreads).enumerate() {
            let row = top + TITLE + ROW * number as f64;
            let scale = |value: f64| NAMES + BARS * value / most;
            text(&mut svg, 10.0, row + 12.0, &target.name);
            bar(&mut svg, row, scale, spread, COLOURS[number % COLOURS.len()]);
            let (median, least, most) = (
                shown(spread.median, micros),
                shown(spread.min, micros),
                shown(spread.max, micros),
            );
            let numbers = format!("{median} ({least} to {most})");
            text(&mut svg, NAMES + BARS + 10.0, row + 12.0, &numbers);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Writing to a string does not fail.
pub(super) fn put(svg: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = svg.write_fmt(line);
    svg.push('\n');
}

pub(super) fn text(svg: &mut String, x: f64, y: f64, what: &str) {
    put(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(what)));
}

fn bar(svg: &mut String, row: f64, scale: impl Fn(f64) -> f64, spread: Spread, colour: &str) {
    let (begin, end) = (NAMES, scale(spread.median));
    let width = end - begin;
    put(
        svg,
        format_args!("<rect x=\"{begin:.1}\" y=\"{row:.1}\" width=\"{width:.1}\" height=\"16\" fill=\"{colour}\"/>"),
    );
    let (least, most, middle) = (scale(spread.min), scale(spread.max), row + 8.0);
    put(
        svg,
        format_args!(
            "<path d=\"M{least:.1} {middle:.1}H{most:.1}\" stroke=\"black\" stroke-width=\"2\"/>"
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::comparison;
    use super::*;

    #[test]
    fn bars_are_as_long_as_what_they_stand_for() {
        let svg = draw(&comparison(&[1000.0, 500.0]));
        let widths: Vec<f64> = svg
            .lines()
            .filter(|line| line.contains("height=\"16\""))
            .map(|line| line.split("width=\"").nth(1).unwrap().split('"').next().unwrap())
            .map(|width| width.parse().unwrap())
            .collect();
        assert_eq!(widths.len(), 8, "four figures of two targets");
        assert!((widths[0] / widths[1] - 2.0).abs() < 0.01, "{widths:?}");
        assert!(widths[0] <= BARS && widths[2] == 0.0, "{widths:?}");
        assert!(svg.contains("t&lt;1&gt;") && !svg.contains("t<1>"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }
}
