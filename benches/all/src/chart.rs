//! Pictures: bars for rows, lines for growth. Plain SVG that follows the reader's light or dark
//! theme by itself.

use crate::report::{OURS, Report, RowReport, short};
use std::fmt::Write as _;

const STYLE: &str = "\
text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}\
.title{font-weight:600;font-size:13px}\
.dim{fill:#59636e}\
.ground{fill:#ffffff}\
.floor{fill:#afb8c1}\
.ours{fill:#0969da}\
.peer{fill:#b6d0ee}\
.mark{stroke:#59636e;stroke-dasharray:2 2}\
.axis{stroke:#d1d9e0}\
@media(prefers-color-scheme:dark){\
text{fill:#f0f6fc}\
.dim{fill:#9198a1}\
.ground{fill:#0d1117}\
.floor{fill:#59636e}\
.ours{fill:#4493f8}\
.peer{fill:#2b4668}\
.mark{stroke:#9198a1}\
.axis{stroke:#3d444d}\
}";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn page(width: f64, height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n{body}</svg>\n"
    )
}

fn label(x: f64, y: f64, class: &str, anchor: &str, text: &str) -> String {
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{}</text>\n",
        escape(text)
    )
}

const MARGIN: f64 = 16.0;
const BAR: f64 = 13.0;
const BAR_STEP: f64 = 18.0;
const NAMES: f64 = 112.0;
const BARS: f64 = 210.0;
/// A bar is cut off at so many times the longer of Seawall's and the floors'.
const BARS_LONGEST: f64 = 2.5;
const COLUMN: f64 = 470.0;
const TITLE: f64 = 22.0;
const PANEL_GAP: f64 = 18.0;

/// All rows as panels of bars, in two columns; a longer bar is faster.
pub(crate) fn bars(report: &Report) -> String {
    let panels: Vec<(f64, String)> = report.rows.iter().filter_map(panel).collect();
    let all: f64 = panels.iter().map(|(height, _)| height + PANEL_GAP).sum();
    let top = MARGIN + TITLE;
    let mut body = String::new();
    let (mut column, mut y, mut bottom) = (0.0, top, top);
    for (height, panel) in &panels {
        if column < 0.5 && panels.len() > 1 && y - top >= all / 2.0 - PANEL_GAP {
            (column, y) = (1.0, top);
        }
        let x = MARGIN + column * COLUMN;
        let _ = write!(body, "<g transform=\"translate({x:.0} {y:.0})\">\n{panel}</g>\n");
        y += height + PANEL_GAP;
        bottom = f64::max(bottom, y);
    }
    let legend = "Longer is faster. Beside each: pace, and speed as a part of the floor's in the \
                  same round (medians). Dashed: the floor. \u{bb}: cut off.";
    body.push_str(&label(MARGIN, MARGIN + 8.0, "dim", "start", legend));
    body.push_str(&label(MARGIN, bottom + 4.0, "dim", "start", &report.machine.to_string()));
    page(MARGIN * 2.0 + COLUMN * 2.0, bottom + MARGIN, &body)
}

/// One row; `None`: nothing was measured.
fn panel(row: &RowReport) -> Option<(f64, String)> {
    let ours = row.ours()?;
    // Speeds relative to Seawall's, which takes part in every row.
    let bars: Vec<_> =
        row.entries.iter().filter_map(|entry| Some((entry, row.ratio(entry, ours)?))).collect();
    let longest = bars.iter().map(|(_, speed)| *speed).fold(0.0, f64::max);
    if longest <= 0.0 {
        return None;
    }
    // Who does far less than the others, such as opening without a look, must not flatten them.
    let floor = bars.iter().filter(|(entry, _)| entry.is_floor).map(|(_, speed)| *speed);
    let longest = longest.min(BARS_LONGEST * floor.fold(1.0, f64::max));
    let mut text = label(0.0, 10.0, "title", "start", &row.title);
    let mut y = TITLE;
    let height = TITLE + BAR_STEP * bars.len() as f64;
    for (entry, speed) in bars {
        let length = (speed / longest * BARS).clamp(1.0, BARS);
        let class = match (entry.is_floor, entry.name == OURS) {
            (true, _) => "floor",
            (_, true) => "ours",
            _ => "peer",
        };
        text.push_str(&label(NAMES - 6.0, y + 11.0, "", "end", &entry.name));
        let _ = writeln!(
            text,
            "<rect x=\"{NAMES}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\" \
             class=\"{class}\"/>"
        );
        let ratio = row.ratio_to_floor(entry).map(|ratio| format!(" \u{b7} {ratio:.2}"));
        let cut = if speed > longest { "\u{bb} " } else { "" };
        let pace = format!("{cut}{}{}", row.pace(entry), ratio.unwrap_or_default());
        text.push_str(&label(NAMES + BARS + 8.0, y + 11.0, "dim", "start", &pace));
        if entry.is_floor && class == "floor" && y < TITLE + 1.0 {
            let x = NAMES + length;
            let _ = writeln!(
                text,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TITLE}\" y2=\"{height:.1}\" \
                 class=\"mark\"/>"
            );
        }
        y += BAR_STEP;
    }
    Some((height, text))
}

/// A curve.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Which colour it has; the same in all plots of a page.
    pub(crate) colour: usize,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A picture of several curves over one axis.
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: &'static str,
    pub(crate) lines: Vec<Line>,
}

/// Told apart in both themes; the first is Seawall's.
const COLOURS: [&str; 10] = [
    "#2f81f7", "#8b949e", "#d29922", "#2da44e", "#e5534b", "#a371f7", "#1b9aaa", "#db61a2",
    "#986801", "#57606a",
];

const PLOT_WIDTH: f64 = 470.0;
const PLOT_HEIGHT: f64 = 300.0;

/// Plots in two columns, both axes logarithmic.
pub(crate) fn plots(plots: &[Plot], foot: &str) -> String {
    let mut body = String::new();
    for (at, plot) in plots.iter().enumerate() {
        let x = MARGIN + (at % 2) as f64 * PLOT_WIDTH;
        let y = MARGIN + (at / 2) as f64 * PLOT_HEIGHT;
        let _ = write!(body, "<g transform=\"translate({x:.0} {y:.0})\">\n{}</g>\n", draw(plot));
    }
    let height = MARGIN * 2.0 + plots.len().div_ceil(2) as f64 * PLOT_HEIGHT;
    body.push_str(&label(MARGIN, height - 4.0, "dim", "start", foot));
    page(MARGIN * 2.0 + PLOT_WIDTH * 2.0, height + 8.0, &body)
}

/// Powers of ten around all values.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| *value > 0.0)
        .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return (0.0, 1.0);
    }
    let (low, high) = (low.log10().floor(), high.log10().ceil());
    (low, if high > low { high } else { low + 1.0 })
}

fn draw(plot: &Plot) -> String {
    const LEFT: f64 = 52.0;
    const TOP: f64 = 30.0;
    const WIDTH: f64 = 270.0;
    const HEIGHT: f64 = 200.0;
    let points = || plot.lines.iter().flat_map(|line| line.points.iter());
    let (x0, x1) = decades(points().map(|point| point.0));
    let (y0, y1) = decades(points().map(|point| point.1));
    let x_of = |x: f64| LEFT + (x.log10() - x0) / (x1 - x0) * WIDTH;
    let y_of = |y: f64| TOP + HEIGHT - (y.max(1e-9).log10() - y0).max(0.0) / (y1 - y0) * HEIGHT;
    let mut text = label(0.0, 12.0, "title", "start", &plot.title);
    let rule = |from: (f64, f64), to: (f64, f64)| {
        format!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" class=\"axis\"/>\n",
            from.0, from.1, to.0, to.1
        )
    };
    let mut decade = y0;
    while decade <= y1 {
        let y = y_of(10_f64.powf(decade));
        text.push_str(&rule((LEFT, y), (LEFT + WIDTH, y)));
        let name = short(10_f64.powf(decade));
        text.push_str(&label(LEFT - 6.0, y + 4.0, "dim", "end", &name));
        decade += 1.0;
    }
    let mut decade = x0;
    while decade <= x1 {
        let (x, name) = (x_of(10_f64.powf(decade)), count(10_f64.powf(decade)));
        text.push_str(&label(x, TOP + HEIGHT + 16.0, "dim", "middle", &name));
        decade += 1.0;
    }
    text.push_str(&label(LEFT + WIDTH / 2.0, TOP + HEIGHT + 32.0, "dim", "middle", plot.x));
    for (at, Line { name, colour, points }) in plot.lines.iter().enumerate() {
        let colour = COLOURS[colour % COLOURS.len()];
        let path: Vec<String> =
            points.iter().map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y))).collect();
        let width = if name == OURS { 2.5 } else { 1.5 };
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            path.join(" ")
        );
        let y = TOP + 10.0 + 17.0 * at as f64;
        let x = LEFT + WIDTH + 12.0;
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"{:.1}\" width=\"10\" height=\"3\" fill=\"{colour}\"/>",
            y - 5.0
        );
        text.push_str(&label(x + 15.0, y, "", "start", name));
    }
    text
}

fn count(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.0} M", value / 1e6)
    } else if value >= 1e3 {
        format!("{:.0} k", value / 1e3)
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_opened_is_closed() {
        let lines =
            vec![Line { name: "a<b".into(), colour: 11, points: vec![(1.0, 10.0), (1e3, 20.0)] }];
        let plot = || Plot { title: "A & B".into(), x: "records", lines: lines.clone() };
        let text = plots(&[plot(), plot(), plot()], "foot");
        assert_eq!(text.matches("<g ").count(), text.matches("</g>").count());
        assert_eq!(text.matches("<text ").count(), text.matches("</text>").count());
        assert!(text.contains("a&lt;b") && text.contains("A &amp; B"));
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }

    #[test]
    fn axes_end_at_powers_of_ten() {
        assert_eq!(decades([3.0, 250.0].into_iter()), (0.0, 3.0));
        assert_eq!(decades([10.0].into_iter()), (1.0, 2.0));
        assert_eq!(decades([].into_iter()), (0.0, 1.0));
    }
}
