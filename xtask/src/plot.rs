//! A plot as SVG text.
//!
//! plotters draws the frame, the mesh and the axes; the points are placed in pixels, because the labels beside them have to keep
//! out of each other's way.

use std::cmp::Ordering;
use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::failure::{Context, Failure, Result};
use crate::report::{Plot, Point, Series, number};

/// The size of a plot in pixels; the page scales it to its column.
pub const SIZE: (u32, u32) = (860, 500);

/// Okabe and Ito's palette, which stays apart for colour-blind readers; its yellow is too pale for lines and left out.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(70, 70, 70),
];

const INK: RGBColor = RGBColor(60, 64, 72);
const MESH: RGBColor = RGBColor(226, 229, 234);
const FONT: &str = "sans-serif";
const LABEL_SIZE: i32 = 13;

/// The colour of a series, for the legend.
pub fn colour(series: usize) -> String {
    let RGBColor(r, g, b) = PALETTE[series % PALETTE.len()];
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Draws the plot.
pub fn svg(plot: &Plot) -> Result<String> {
    let points = || plot.series.iter().flat_map(|series| &series.points);
    let x = Axis::new(plot.x_log, false, points().map(|point| point.x));
    // Heights are compared by eye, so a linear vertical axis starts at 0 where that leaves room for the points.
    let y = Axis::new(plot.y_log, true, points().map(|point| point.y));
    let (Some(x), Some(y)) = (x, y) else {
        return Err(Failure::new(format!(
            "plot `{}`: no point that its axes can show",
            plot.title
        )));
    };
    let mut text = String::new();
    draw(plot, &x, &y, &mut text).context(format!("plot `{}`", plot.title))?;
    Ok(text)
}

fn draw(
    plot: &Plot,
    x: &Axis,
    y: &Axis,
    text: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .margin_right(24)
        .x_label_area_size(46)
        .y_label_area_size(72)
        .build_cartesian_2d(x.clone(), y.clone())?;
    chart
        .configure_mesh()
        .bold_line_style(MESH)
        .axis_style(INK)
        .label_style((FONT, 13).into_font().color(&INK))
        .axis_desc_style((FONT, 14).into_font().color(&INK))
        .x_desc(&plot.x_label)
        .y_desc(&plot.y_label)
        .draw()?;

    let shown: Vec<Vec<(&Point, (i32, i32))>> = plot
        .series
        .iter()
        .map(|series| {
            let shown = series
                .points
                .iter()
                .filter(|point| x.shows(point.x) && y.shows(point.y));
            shown
                .map(|point| (point, chart.backend_coord(&(point.x, point.y))))
                .collect()
        })
        .collect();
    for (i, points) in shown.iter().enumerate() {
        let colour = PALETTE[i % PALETTE.len()];
        if joined(&plot.series[i]) {
            let line: Vec<(i32, i32)> = points.iter().map(|(_, at)| *at).collect();
            root.draw(&PathElement::new(line, colour.stroke_width(2)))?;
        }
        for (_, at) in points {
            // A white edge keeps markers that lie on each other apart.
            root.draw(&marker(i, *at, true, WHITE))?;
            root.draw(&marker(i, *at, false, colour))?;
        }
    }
    let (across, down) = chart.plotting_area().get_pixel_range();
    let frame = Area {
        left: across.start,
        right: across.end,
        top: down.start,
        bottom: down.end,
    };
    let mut labels = Labels {
        frame,
        taken: Vec::new(),
    };
    labels.taken.extend(
        shown
            .iter()
            .flatten()
            .map(|&(_, (px, py))| Area::around(px, py, 6)),
    );
    for (i, points) in shown.iter().enumerate() {
        let colour = PALETTE[i % PALETTE.len()];
        for &(point, (px, py)) in points {
            let Some(label) = &point.label else { continue };
            let area = labels.place((px, py), label);
            let (middle_x, middle_y) = area.middle();
            if (middle_y - py).abs() > 14 {
                root.draw(&PathElement::new(
                    vec![(px, py), area.nearest(px, py)],
                    colour.mix(0.5),
                ))?;
            }
            // Aligned on the side of the point, because the width of the text is only an estimate.
            let (text_x, side) = match middle_x.cmp(&px) {
                Ordering::Greater => (area.left, HPos::Left),
                Ordering::Less => (area.right, HPos::Right),
                Ordering::Equal => (middle_x, HPos::Center),
            };
            let style = (FONT, LABEL_SIZE)
                .into_font()
                .color(&INK)
                .pos(Pos::new(side, VPos::Center));
            root.draw(&Text::new(label.clone(), (text_x, middle_y), style))?;
        }
    }
    root.present()?;
    Ok(())
}

/// Points with labels are schemes, not a curve.
fn joined(series: &Series) -> bool {
    series.points.len() > 1 && series.points.iter().all(|point| point.label.is_none())
}

/// Shape as well as colour tells the series apart. `grown` makes the shape larger by about a pixel.
fn marker(series: usize, (x, y): (i32, i32), grown: bool, colour: RGBColor) -> Polygon<(i32, i32)> {
    let corners: &[(i32, i32)] = match series % 4 {
        0 => &[
            (-5, -2),
            (-2, -5),
            (2, -5),
            (5, -2),
            (5, 2),
            (2, 5),
            (-2, 5),
            (-5, 2),
        ],
        1 => &[(-5, -5), (5, -5), (5, 5), (-5, 5)],
        2 => &[(0, -6), (6, 5), (-6, 5)],
        _ => &[(0, -7), (6, 0), (0, 7), (-6, 0)],
    };
    let grow = |d: i32| if grown { d + d.signum() } else { d };
    let placed: Vec<(i32, i32)> = corners
        .iter()
        .map(|&(dx, dy)| (x + grow(dx), y + grow(dy)))
        .collect();
    Polygon::new(placed, colour.filled())
}

/// One axis: from values to pixels, linear or logarithmic.
#[derive(Clone)]
struct Axis {
    log: bool,
    /// The ends, on the scale that is drawn: the values themselves, or their decimal logarithms.
    low: f64,
    high: f64,
    /// The values that have a mesh line and a number.
    ticks: Vec<f64>,
}

impl Axis {
    fn new(log: bool, from_zero: bool, values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut axis = Self {
            log,
            low: f64::INFINITY,
            high: f64::NEG_INFINITY,
            ticks: Vec::new(),
        };
        let mut distinct = Vec::new();
        for value in values {
            if axis.shows(value) && !distinct.contains(&value) {
                distinct.push(value);
                axis.low = axis.low.min(axis.scaled(value));
                axis.high = axis.high.max(axis.scaled(value));
            }
        }
        if distinct.is_empty() {
            return None;
        }
        let span = if axis.high > axis.low {
            axis.high - axis.low
        } else {
            axis.high.abs().max(1.0)
        };
        let near_zero = axis.low >= 0.0 && axis.low < 0.75 * axis.high;
        let margin = 0.06 * span;
        axis.low = match (log, from_zero && near_zero) {
            (false, true) => 0.0,
            (false, false) if axis.low >= 0.0 => (axis.low - margin).max(0.0),
            _ => axis.low - margin,
        };
        axis.high += margin;
        let powers_of_two = distinct.iter().all(|value| value.log2().fract() == 0.0);
        axis.ticks = if log && powers_of_two && distinct.len() <= 12 {
            distinct
        } else if log {
            log_ticks(axis.low, axis.high)
        } else {
            linear_ticks(axis.low, axis.high)
        };
        Some(axis)
    }

    /// Whether the axis has a place for the value.
    fn shows(&self, value: f64) -> bool {
        self.scaled(value).is_finite()
    }

    fn scaled(&self, value: f64) -> f64 {
        if self.log { value.log10() } else { value }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let along = (self.scaled(*value) - self.low) / (self.high - self.low);
        first + (along * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            Vec::new()
        } else {
            self.ticks.clone()
        }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(value: &f64) -> String {
        // Ticks are round numbers; six digits take away what adding steps left behind.
        number(format!("{value:.6e}").parse().unwrap_or(*value))
    }
}

/// About eight round values.
fn linear_ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 8.0;
    let unit = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|m| m * unit)
        .find(|step| *step >= rough)
        .unwrap_or(rough);
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// 1, 2, 5 in each decade between two decimal logarithms; the powers of ten alone where there are many.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let factors: &[f64] = if high - low > 3.0 {
        &[1.0]
    } else {
        &[1.0, 2.0, 5.0]
    };
    (low.floor() as i32..=high.ceil() as i32)
        .flat_map(|decade| {
            factors
                .iter()
                .map(move |factor| factor * 10f64.powi(decade))
        })
        .filter(|value| (low..=high).contains(&value.log10()))
        .collect()
}

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Area {
    left: i32,
    right: i32,
    top: i32,
    bottom: i32,
}

impl Area {
    fn around(x: i32, y: i32, reach: i32) -> Self {
        Self {
            left: x - reach,
            right: x + reach,
            top: y - reach,
            bottom: y + reach,
        }
    }

    fn middle(&self) -> (i32, i32) {
        ((self.left + self.right) / 2, (self.top + self.bottom) / 2)
    }

    fn nearest(&self, x: i32, y: i32) -> (i32, i32) {
        (
            x.clamp(self.left, self.right),
            y.clamp(self.top, self.bottom),
        )
    }

    fn overlap(&self, other: &Self) -> i32 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        width.max(0) * height.max(0)
    }

    fn size(&self) -> i32 {
        (self.right - self.left) * (self.bottom - self.top)
    }
}

/// Places labels one after the other, each where it hides least of what is there already.
struct Labels {
    frame: Area,
    taken: Vec<Area>,
}

impl Labels {
    fn place(&mut self, (x, y): (i32, i32), label: &str) -> Area {
        // An average glyph of a sans-serif face is a little over half as wide as the face is high.
        let (half_width, half_height) = (
            label.chars().count() as i32 * LABEL_SIZE * 27 / 100 + 2,
            LABEL_SIZE / 2 + 1,
        );
        let mut best: Option<(i32, Area)> = None;
        for (ring, drop) in [0, 16, 30, 46, 64, 84].into_iter().enumerate() {
            for (side, rise) in [(1, -1), (-1, -1), (1, 1), (-1, 1), (0, -1), (0, 1)] {
                let near = if side == 0 { drop.max(16) } else { drop };
                let (cx, cy) = (x + side * (half_width + 9), y + rise * near);
                let area = Area {
                    left: cx - half_width,
                    right: cx + half_width,
                    top: cy - half_height,
                    bottom: cy + half_height,
                };
                let hidden: i32 = self.taken.iter().map(|other| area.overlap(other)).sum();
                let outside = area.size() - area.overlap(&self.frame);
                let cost = 8 * (hidden + 4 * outside) + ring as i32;
                if best.is_none_or(|(least, _)| cost < least) {
                    best = Some((cost, area));
                }
            }
        }
        let area = best.map_or(Area::around(x, y, half_height), |(_, area)| area);
        self.taken.push(area);
        area
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(x_log: bool, y_log: bool, points: &[(f64, f64, Option<&str>)]) -> Plot {
        let points = points
            .iter()
            .map(|&(x, y, label)| Point {
                x,
                y,
                label: label.map(str::to_owned),
            })
            .collect();
        Plot {
            title: "sample".into(),
            x_label: "bits".into(),
            y_label: "KL <nats>".into(),
            x_log,
            y_log,
            series: vec![Series {
                name: "one".into(),
                points,
            }],
        }
    }

    #[test]
    fn every_label_and_axis_is_drawn() {
        for (x_log, y_log) in [(false, false), (false, true), (true, false), (true, true)] {
            let plot = sample(
                x_log,
                y_log,
                &[(2.0, 0.15, Some("stock")), (4.0, 0.003, Some("q4 & more"))],
            );
            let text = svg(&plot).unwrap();
            for part in [
                "stock",
                "q4 &amp; more",
                "bits",
                "KL &lt;nats&gt;",
                "</svg>",
            ] {
                assert!(text.contains(part), "{part} is not in the SVG");
            }
            assert_eq!(
                text.matches("<polygon").count(),
                4,
                "two markers with their edges"
            );
        }
    }

    #[test]
    fn one_point_and_equal_points_have_a_plot() {
        svg(&sample(false, false, &[(3.0, 0.0, None)])).unwrap();
        svg(&sample(true, true, &[(3.0, 1.0, None), (3.0, 1.0, None)])).unwrap();
    }

    #[test]
    fn what_an_axis_cannot_show_is_left_out_or_an_error() {
        let text = svg(&sample(false, true, &[(1.0, 0.0, None), (2.0, 0.1, None)])).unwrap();
        assert_eq!(
            text.matches("<polygon").count(),
            2,
            "one marker with its edge"
        );
        let failure = svg(&sample(true, false, &[(0.0, 1.0, None)]))
            .unwrap_err()
            .to_string();
        assert!(failure.contains("`sample`"), "{failure}");
        assert!(svg(&sample(false, false, &[])).is_err());
    }

    #[test]
    fn ticks_are_round() {
        let labels = |log, values: &[f64]| {
            let axis = Axis::new(log, true, values.iter().copied()).unwrap();
            axis.ticks.iter().map(Axis::format).collect::<Vec<_>>()
        };
        assert_eq!(labels(false, &[0.0, 8.2]), ["0", "2", "4", "6", "8"]);
        assert_eq!(
            labels(false, &[15.0, 16.0]),
            ["15", "15.2", "15.4", "15.6", "15.8", "16"]
        );
        assert_eq!(
            labels(true, &[512.0, 1024.0, 8192.0]),
            ["512", "1024", "8192"]
        );
        let between = ["0.002", "0.005", "0.01", "0.02", "0.05", "0.1", "0.2"];
        assert_eq!(labels(true, &[0.0016, 0.157]), between);
        assert_eq!(
            labels(true, &[0.0001, 10.0]),
            ["0.0001", "0.001", "0.01", "0.1", "1", "10"]
        );
    }

    #[test]
    fn labels_of_near_points_do_not_overlap() {
        let frame = Area {
            left: 0,
            right: 800,
            top: 0,
            bottom: 400,
        };
        let mut labels = Labels {
            frame,
            taken: Vec::new(),
        };
        let mut areas: Vec<Area> = Vec::new();
        for i in 0..6 {
            let area = labels.place((400 + i, 200), "a scheme's name");
            assert!(areas.iter().all(|other| other.overlap(&area) == 0));
            assert_eq!(area.overlap(&labels.frame), area.size());
            areas.push(area);
        }
    }
}
