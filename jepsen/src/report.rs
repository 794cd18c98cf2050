//! Reports of a run for people: `timeline.html`, `latency.svg` and `rate.svg`, with the faults shaded.
//!
//! Invariant: drawn from the history alone, so that an old run's report can be drawn again.
//!
//! Deliberately absent: scripts and external resources; the files open without a network.

mod plot;

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::check::story::Fate;
use crate::check::{Story, Verdict};
use crate::node::Role;
use plot::{escape, seconds, Frame};

/// Most publishes drawn in the timeline; of more, an even selection.
const BARS: usize = 4_000;

/// A bar's height, and a fault's.
const BAR: f64 = 3.0;
const FAULT: f64 = 16.0;

/// Longest latency drawn, and shortest, in seconds, as powers of ten.
const LATENCY: (f64, f64) = (-3.5, 1.5);

/// Writes all reports into a run's folder.
///
/// # Errors
/// Those of the file system.
pub fn write(folder: &Path, story: &Story, verdict: &Verdict) -> Result<()> {
    let files = [
        ("latency.svg", latency(story)),
        ("rate.svg", rate(story)),
        ("timeline.html", timeline(story, verdict)),
    ];
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Publishes: when each was sent, when it was answered, and how.
fn answers(story: &Story) -> impl Iterator<Item = (f64, Option<f64>, &'static str)> + '_ {
    story.publishes.iter().map(|publish| {
        let (end, colour) = match &publish.fate {
            Fate::Ok(at, _) => (Some(seconds(at.time)), "#4a8"),
            Fate::Failed(at, _) => (Some(seconds(at.time)), "#c90"),
            Fate::Unknown(_) => (None, "#c33"),
        };
        (seconds(publish.at.time), end, colour)
    })
}

fn length(story: &Story) -> f64 {
    let ends = answers(story).map(|(begin, end, _)| end.unwrap_or(begin));
    ends.fold(1.0, f64::max)
}

/// How long each publish waited for its answer.
fn latency(story: &Story) -> String {
    let mut frame = Frame::new("latency of publishes", length(story), LATENCY);
    frame.shade(&story.faults);
    for tenth in -3..=1 {
        let text = match tenth {
            -3 => "1 ms",
            -2 => "10 ms",
            -1 => "100 ms",
            0 => "1 s",
            _ => "10 s",
        };
        frame.line(f64::from(tenth), text);
    }
    for (begin, end, colour) in answers(story) {
        // An answer that never came is drawn at the top.
        let waited = end.map_or(LATENCY.1, |end| (end - begin).max(1e-6).log10());
        frame.dot(begin, waited.clamp(LATENCY.0, LATENCY.1), colour);
    }
    frame.finish()
}

/// Answers a second, by kind.
fn rate(story: &Story) -> String {
    let count = length(story).ceil() as usize + 1;
    let mut rates =
        [("#4a8", vec![0.0; count]), ("#c90", vec![0.0; count]), ("#c33", vec![0.0; count])];
    for (begin, end, colour) in answers(story) {
        let second = end.unwrap_or(begin) as usize;
        for (_, rate) in rates.iter_mut().filter(|(of, _)| *of == colour) {
            rate[second] += 1.0;
        }
    }
    let most = rates.iter().flat_map(|(_, rate)| rate).fold(1.0_f64, |most, rate| most.max(*rate));
    let mut frame = Frame::new("answers a second", length(story), (0.0, most * 1.05));
    frame.shade(&story.faults);
    for part in 0..=4 {
        let value = most * f64::from(part) / 4.0;
        frame.line(value, &format!("{value:.0}"));
    }
    for (colour, rate) in &rates {
        let points = rate.iter().enumerate().map(|(second, rate)| (second as f64 + 0.5, *rate));
        frame.curve(points, colour);
    }
    frame.finish()
}

fn timeline(story: &Story, verdict: &Verdict) -> String {
    let plan = story.plan.as_ref();
    let title = plan.map_or(String::new(), |plan| {
        format!(
            "seed {}: {} under {}",
            plan.seed,
            plan.workloads.join(", "),
            if plan.nemeses.is_empty() { "nothing".to_owned() } else { plan.nemeses.join(", ") }
        )
    });
    let mut text = format!(
        "<!doctype html><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>body{{font:14px sans-serif;margin:2em}}pre{{background:#f4f4f4;padding:1em;overflow:auto}}</style>\n\
         <h1>{title}</h1>\n<pre>{}</pre>\n",
        escape(&verdict.to_string()),
        title = escape(&title)
    );
    text += "<p>Shaded: faults. Green: acknowledged; yellow: refused; red: unknown. \
             Hover over a bar to see what it is.</p>\n<img src=\"rate.svg\"><br><img src=\"latency.svg\">\n";
    let _ = writeln!(text, "<h2>faults</h2>\n{}", faults(story, length(story)));
    let _ = writeln!(text, "<h2>publishes</h2>\n{}", bars(story));
    text
}

fn faults(story: &Story, length: f64) -> String {
    let faults = &story.faults;
    let (width, left) = (Frame::WIDTH, 140.0);
    let scale = (width - left) / length;
    let mut nodes: Vec<u64> = faults.iter().flat_map(|fault| fault.blow.nodes.clone()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let height = nodes.len() as f64 * (FAULT + 4.0) + 10.0;
    let mut svg = format!("<svg width=\"{width}\" height=\"{height}\">");
    for (row, node) in nodes.iter().enumerate() {
        let top = row as f64 * (FAULT + 4.0) + 4.0;
        let layout = story.plan.as_ref().map(|plan| &plan.layout);
        let roles = layout.filter(|layout| layout.is_split()).map(|layout| layout.roles(*node));
        let roles: Vec<&str> = roles.into_iter().flatten().map(Role::name).collect();
        let _ = write!(
            svg,
            "<text x=\"0\" y=\"{}\" font-size=\"12\">node {node} {}</text>",
            top + 12.0,
            roles.join(", ")
        );
        for fault in faults.iter().filter(|fault| fault.blow.nodes.contains(node)) {
            let Some(from) = fault.from.map(|from| seconds(from.time)) else { continue };
            let to = fault.to.map_or(length, |to| seconds(to.time));
            let _ = write!(
                svg,
                "<rect x=\"{:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{FAULT}\" fill=\"{}\" fill-opacity=\"0.6\">\
                 <title>{} {}: {from:.2} to {to:.2} s\n{}</title></rect>",
                left + from * scale,
                ((to - from) * scale).max(1.0),
                plot::colour(&fault.blow.nemesis),
                escape(&fault.blow.nemesis),
                escape(&fault.blow.how),
                escape(&fault.blow.proof),
            );
        }
    }
    svg += "</svg>\n";
    for blow in faults.iter().filter(|fault| fault.from.is_none()).map(|fault| &fault.blow) {
        let told = format!("{} {} {:?}: {}", blow.nemesis, blow.how, blow.nodes, blow.proof);
        let _ = writeln!(svg, "<br>failed: {}", escape(&told));
    }
    svg
}

/// Each publish from its request to its answer, with overlapping ones in separate rows.
fn bars(story: &Story) -> String {
    let every = story.publishes.len().div_ceil(BARS).max(1);
    let length = length(story);
    let scale = Frame::WIDTH / length;
    let mut rows: Vec<f64> = Vec::new();
    let mut drawn = String::new();
    for publish in story.publishes.iter().step_by(every) {
        let from = seconds(publish.at.time);
        let (to, colour) = match &publish.fate {
            Fate::Ok(at, _) => (seconds(at.time), "#4a8"),
            Fate::Failed(at, _) => (seconds(at.time), "#c90"),
            Fate::Unknown(_) => (from + 0.1, "#c33"),
        };
        let row = rows.iter().position(|end| *end < from).unwrap_or(rows.len());
        if row == rows.len() {
            rows.push(0.0);
        }
        rows[row] = to;
        let what = &publish.what;
        let _ = writeln!(
            drawn,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{colour}\">\
             <title>{} {} {} at node {}, {from:.3} to {to:.3} s {:?}</title></rect>",
            from * scale,
            row as f64 * (BAR + 1.0),
            ((to - from) * scale).max(0.7),
            publish.f,
            escape(&what.id),
            escape(&what.topic),
            what.node,
            publish.fate.ok().and_then(|(_, answer)| answer.position),
        );
    }
    let height = rows.len() as f64 * (BAR + 1.0) + 4.0;
    let note = if every > 1 { format!("<p>One of {every} is drawn.</p>\n") } else { String::new() };
    format!("{note}<svg width=\"{}\" height=\"{height}\">{drawn}</svg>", Frame::WIDTH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::judge;
    use crate::op::{Kind, Op, Process};
    use serde_json::json;

    #[test]
    fn a_run_is_drawn() {
        let op = |index, kind, process, f: &str, value| Op {
            index,
            time: index * 500_000_000,
            kind,
            process,
            f: f.to_owned(),
            value,
        };
        let (client, nemesis) = (Process::Client(0), Process::Nemesis);
        let blow = json!({ "number": 1, "nemesis": "kill", "how": "<one>", "nodes": [2], "proof": "gone" });
        let asked = json!({ "session": "s", "number": 1, "id": "a", "topic": "t", "node": 1, "protocol": "wamp" });
        let story = Story::new(&[
            op(0, Kind::Info, nemesis, "strike", blow.clone()),
            op(1, Kind::Info, nemesis, "start", blow.clone()),
            op(2, Kind::Invoke, client, "publish", asked.clone()),
            op(3, Kind::Ok, client, "publish", asked),
            op(4, Kind::Info, nemesis, "stop", blow),
        ])
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &story, &judge(&story)).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(read("timeline.html").contains("kill &lt;one&gt;: 0.50 to 2.00 s"));
        assert!(read("latency.svg").contains("<circle") && read("rate.svg").contains("<polyline"));
        assert!(read("rate.svg").ends_with("</svg>\n"));
    }
}
