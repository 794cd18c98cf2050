//! Plots over a run's time, as SVG.
//!
//! Invariant: text from a history is escaped before it gets into a file.
//!
//! Deliberately absent: what is plotted.

use std::fmt::Write as _;

use crate::check::story::Fault;

const HEIGHT: f64 = 260.0;
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 30.0;
const TOP: f64 = 24.0;

/// Seconds of a history's time.
pub(super) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The colour of a nemesis.
pub(super) fn colour(nemesis: &str) -> &'static str {
    match nemesis {
        "kill" => "#d33",
        "pause" => "#36c",
        "partition" => "#83c",
        "power" => "#000",
        "corrupt" => "#850",
        "restart" => "#888",
        "clock" => "#0aa",
        _ => "#c60",
    }
}

/// A plot under construction.
pub(super) struct Frame {
    svg: String,
    length: f64,
    range: (f64, f64),
}

impl Frame {
    pub(super) const WIDTH: f64 = 1_100.0;

    pub(super) fn new(title: &str, length: f64, range: (f64, f64)) -> Self {
        let (width, middle) = (Self::WIDTH, Self::WIDTH / 2.0);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"{width}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
             <text x=\"{middle}\" y=\"15\" text-anchor=\"middle\">{}</text>\n",
            escape(title)
        );
        let step = if length > 60.0 { 10.0 } else { 5.0 };
        let scale = (width - LEFT) / length;
        for mark in 0..=(length / step) as u32 {
            let second = f64::from(mark) * step;
            let (x, y) = (LEFT + second * scale, HEIGHT - 10.0);
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{second} s</text>"
            );
        }
        Self { svg, length, range }
    }

    fn x(&self, second: f64) -> f64 {
        LEFT + second * (Self::WIDTH - LEFT) / self.length
    }

    fn y(&self, value: f64) -> f64 {
        let (low, high) = self.range;
        HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP)
    }

    pub(super) fn shade(&mut self, faults: &[Fault]) {
        for fault in faults {
            let Some(from) = fault.from else { continue };
            let from = self.x(seconds(from.time));
            let to = self.x(fault.to.map_or(self.length, |to| seconds(to.time)));
            let _ = writeln!(
                self.svg,
                "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\" fill-opacity=\"0.12\">\
                 <title>{} {}</title></rect>",
                (to - from).max(1.0),
                HEIGHT - BOTTOM - TOP,
                colour(&fault.blow.nemesis),
                escape(&fault.blow.nemesis),
                escape(&fault.blow.how),
            );
        }
    }

    /// A horizontal line, with its label.
    pub(super) fn line(&mut self, value: f64, text: &str) {
        let (y, width) = (self.y(value), Self::WIDTH);
        let _ = writeln!(
            self.svg,
            "<line x1=\"{LEFT}\" x2=\"{width}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 5.0,
            y + 4.0,
            escape(text)
        );
    }

    pub(super) fn dot(&mut self, second: f64, value: f64, colour: &str) {
        let (x, y) = (self.x(second), self.y(value));
        let _ =
            writeln!(self.svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.2\" fill=\"{colour}\"/>");
    }

    pub(super) fn curve(&mut self, points: impl Iterator<Item = (f64, f64)>, colour: &str) {
        let points: Vec<String> = points
            .filter(|(second, _)| *second <= self.length)
            .map(|(second, value)| format!("{:.1},{:.1}", self.x(second), self.y(value)))
            .collect();
        let _ = writeln!(
            self.svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            points.join(" ")
        );
    }

    pub(super) fn finish(self) -> String {
        self.svg + "</svg>\n"
    }
}
