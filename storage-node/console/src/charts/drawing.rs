//! A chart as SVG: axes and lines by `plotters`, then a strip for each minute, which shows its values on hover.
//!
//! Colours depend on the reader's preference (dark or light), which only a style sheet knows. So `plotters` is given
//! codes in the place of colours, and `console.css` translates them:
//!
//! | code | is the colour of |
//! |---|---|
//! | `#010001` | axes |
//! | `#010002` | lines of the grid |
//! | `#010003` | text |
//! | `#020001`, `#020002`, `#020003` | first, second, third series |

use maud::{Markup, html};
use plotters::prelude::*;

use super::{
    Chart, Series, readout, svg_figure,
    unit::{self, AxisScale},
};

/// In pixels on a phone; elsewhere it grows with its column.
const WIDTH: u32 = 360;
const HEIGHT: u32 = 180;
/// `plotters` takes points and writes pixels of 1.24 points.
const FONT: (&str, u32) = ("system-ui, sans-serif", 15);
const AXIS: RGBColor = RGBColor(1, 0, 1);
const GRID: RGBColor = RGBColor(1, 0, 2);
const TEXT: RGBColor = RGBColor(1, 0, 3);
const LINE_WIDTH: u32 = 2;
/// The radius of a value between two gaps, which no line shows.
const LONE_RADIUS: i32 = 3;

/// The code of a series' colour in the SVG.
pub(crate) fn color_code(series: usize) -> String {
    let RGBColor(red, green, blue) = color(series);
    format!("#{red:02X}{green:02X}{blue:02X}")
}

pub(crate) fn svg(chart: &Chart) -> Markup {
    let most = chart.series.iter().flat_map(|series| &series.values).flatten().copied().fold(0.0, f64::max);
    let scale = chart.unit.axis(most);
    let mut drawn = String::new();
    let plot = draw(&mut drawn, chart, scale, chart.unit.axis_end(most) / scale.divisor)
        .expect("drawing into a text cannot fail");
    let inner = format!("{}{}", without_envelope(&drawn), strips(chart, &plot).into_string());
    svg_figure(chart, WIDTH, HEIGHT, &inner)
}

/// Where the lines are, in pixels.
struct PlotArea {
    left: f64,
    right: f64,
    top: i32,
    bottom: i32,
}

fn draw(out: &mut String, chart: &Chart, scale: AxisScale, end: f64) -> Result<PlotArea, Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(out, (WIDTH, HEIGHT)).into_drawing_area();
    let last = chart.minutes.len().saturating_sub(1) as f64;
    let mut context = ChartBuilder::on(&root)
        .margin_top(10)
        .margin_right(16)
        .x_label_area_size(26)
        .y_label_area_size(62)
        .build_cartesian_2d(0.0..last, 0.0..end)?;
    let minute = |at: &f64| chart.minutes.get(at.round() as usize).map(|it| it.label.clone()).unwrap_or_default();
    let is_whole = chart.unit.is_whole();
    let value = |value: &f64| if is_whole && value.fract() != 0.0 { String::new() } else { unit::short(*value) };
    let mut mesh = context.configure_mesh();
    if !scale.name.is_empty() {
        mesh.y_desc(scale.name);
    }
    mesh.disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(AXIS)
        .label_style(FONT.into_font().color(&TEXT))
        .x_labels(5)
        .y_labels(5)
        .x_label_formatter(&minute)
        .y_label_formatter(&value)
        .draw()?;
    for (at, series) in chart.series.iter().enumerate() {
        for run in runs(series, scale.divisor) {
            match run[..] {
                [alone] => drop(context.draw_series([Circle::new(alone, LONE_RADIUS, color(at).filled())])?),
                _ => drop(context.draw_series(LineSeries::new(run, color(at).stroke_width(LINE_WIDTH)))?),
            }
        }
    }
    let ((left, bottom), (right, top)) = (context.backend_coord(&(0.0, 0.0)), context.backend_coord(&(last, end)));
    root.present()?;
    Ok(PlotArea { left: left.into(), right: right.into(), top, bottom })
}

/// Values without a gap between them.
fn runs(series: &Series, divisor: f64) -> Vec<Vec<(f64, f64)>> {
    let mut runs = vec![Vec::new()];
    for (at, value) in series.values.iter().enumerate() {
        match value {
            Some(value) => runs.last_mut().expect("there is one").push((at as f64, value / divisor)),
            None => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

/// A transparent strip over each minute with its values as a title, which browsers show on hover and the script shows
/// below the chart.
fn strips(chart: &Chart, plot: &PlotArea) -> Markup {
    let step = (plot.right - plot.left) / (chart.minutes.len().max(2) - 1) as f64;
    html! {
        @for (at, minute) in chart.minutes.iter().enumerate() {
            @if let Some(text) = readout(chart, at) {
                rect.minute.partial[minute.missing.is_some()]
                    x=(format!("{:.1}", plot.left + (at as f64 - 0.5) * step)) y=(plot.top)
                    width=(format!("{step:.1}")) height=(plot.bottom - plot.top) {
                    title { (text) }
                }
            }
        }
    }
}

/// What is between the outer tags, which this crate writes itself.
fn without_envelope(svg: &str) -> &str {
    let begin = svg.find('>').map_or(0, |at| at + 1);
    let end = svg.rfind("</svg>").unwrap_or(svg.len());
    svg[begin..end].trim()
}

fn color(series: usize) -> RGBColor {
    RGBColor(2, 0, series as u8 + 1)
}
