//! A chart as SVG: axes with units, lines, marks, and what a pointer shows.

use std::fmt::Write as _;

use super::super::text::{escape, short};

/// Lines over one axis of x.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// What one sees in it, a sentence or two.
    pub(super) about: &'a str,
    pub(super) x: X<'a>,
    pub(super) y_label: &'a str,
    /// Behind values that a pointer shows: ` ms`.
    pub(super) y_unit: &'a str,
    /// The axis of y goes on up to here at least.
    pub(super) y_top: f64,
    /// Whether there is a switch to a logarithmic axis of y, and which is shown first.
    pub(super) log: Log,
    pub(super) xs: Vec<f64>,
    pub(super) lines: Vec<Line>,
    pub(super) marks: Vec<Mark>,
}

pub(super) enum X<'a> {
    /// Label, unit behind values that a pointer shows.
    Linear(&'a str, &'a str),
    /// x is log10 of 1/(1-p); the ticks are percentiles.
    Percentile,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Log {
    Never,
    Offered,
    Shown,
}

pub(super) struct Line {
    pub(super) name: String,
    /// One of six.
    pub(super) color: usize,
    pub(super) dashed: bool,
    /// The value holds until the next x.
    pub(super) steps: bool,
    /// One for each x; `None` is a gap.
    pub(super) values: Vec<Option<f64>>,
}

/// A vertical line with a name.
pub(super) struct Mark {
    pub(super) x: f64,
    pub(super) label: String,
}

const WIDTH: f64 = 920.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 34.0;
const TOP: f64 = 38.0;
const BOTTOM: f64 = 52.0;

/// Pixels that the name of a mark takes at most.
const MARK_ROOM: f64 = 190.0;

/// From values to pixels.
struct Scale {
    from: f64,
    to: f64,
    log: bool,
    ticks: Vec<f64>,
}

impl Chart<'_> {
    /// The figure, or nothing when no line has a value.
    pub(super) fn render(&self, page: &mut String) {
        let all = self.lines.iter().flat_map(|line| line.values.iter().flatten().copied());
        let all: Vec<f64> = all.filter(|value| value.is_finite()).collect();
        let (Some(first), Some(last)) = (self.xs.first(), self.xs.last()) else { return };
        if all.is_empty() {
            return;
        }
        let marks = self.marks.iter().map(|mark| mark.x);
        let x = match self.x {
            X::Linear(..) => Scale::linear(*first, marks.fold(*last, f64::max)),
            X::Percentile => Scale::percentile(*last),
        };
        let (title, about, data) = (escape(self.title), escape(self.about), self.data(&x));
        let _ = write!(page, "<figure><figcaption><h2>{title}</h2><p>{about}</p></figcaption>");
        self.legend(page);
        let _ = write!(
            page,
            "<div class=\"plot\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{title}\" data-chart=\"{}\">",
            escape(&data)
        );
        self.x_axis(page, &x);
        self.layers(page, &x, &all);
        self.draw_marks(page, &x);
        let (bottom, hover) = (HEIGHT - BOTTOM, "class=\"cursor hidden\"");
        let _ = write!(page, "<line {hover} x1=\"0\" x2=\"0\" y1=\"{TOP}\" y2=\"{bottom}\"/>");
        page.push_str("</svg><div class=\"tip hidden\"></div></div></figure>\n");
    }

    /// Axis of y and lines, linear and logarithmic; the script shows one of them.
    fn layers(&self, page: &mut String, x: &Scale, all: &[f64]) {
        let top = all.iter().copied().fold(self.y_top, f64::max);
        let layers: &[(bool, &str)] = match self.log {
            Log::Never => &[(false, "")],
            Log::Offered => &[(false, ""), (true, " hidden")],
            Log::Shown => &[(false, " hidden"), (true, "")],
        };
        for (log, hidden) in layers {
            let y = if *log { Scale::log(all, top) } else { Scale::headroom(top) };
            let name = if *log { "log" } else { "linear" };
            let _ = write!(page, "<g class=\"{name}{hidden}\">");
            self.y_axis(page, &y);
            // The first of the legend lies on top.
            for line in self.lines.iter().rev() {
                line.render(page, &self.xs, x, &y);
            }
            page.push_str("</g>");
        }
    }

    fn legend(&self, page: &mut String) {
        page.push_str("<div class=\"legend\">");
        for line in &self.lines {
            let dashed = if line.dashed { " dashed" } else { "" };
            let (color, name) = (line.color % 6, escape(&line.name));
            let _ = write!(page, "<span><i class=\"k{color}{dashed}\"></i>{name}</span>");
        }
        if self.log != Log::Never {
            let next = if self.log == Log::Shown { "linear" } else { "logarithmic" };
            let _ = write!(page, "<button type=\"button\" class=\"switch\">{next} axis</button>");
        }
        page.push_str("</div>");
    }

    /// For the pointer: pixels and texts of each x, names and texts of each line.
    fn data(&self, x: &Scale) -> String {
        let pixels: Vec<f64> =
            self.xs.iter().map(|value| (x.x(*value) * 10.0).round() / 10.0).collect();
        let heads: Vec<String> = self.xs.iter().map(|value| self.x_text(*value)).collect();
        let text = |value: &Option<f64>| {
            value.map_or_else(|| "–".into(), |value| format!("{}{}", short(value), self.y_unit))
        };
        let lines: Vec<(String, Vec<String>)> = self
            .lines
            .iter()
            .map(|line| (line.name.clone(), line.values.iter().map(text).collect()))
            .collect();
        serde_json::to_string(&(pixels, heads, lines)).unwrap_or_default()
    }

    fn x_text(&self, value: f64) -> String {
        match self.x {
            X::Linear(_, unit) => format!("{}{unit}", short(value)),
            X::Percentile => percentile_text(value),
        }
    }

    fn x_axis(&self, page: &mut String, x: &Scale) {
        let bottom = HEIGHT - BOTTOM;
        for tick in &x.ticks {
            let (px, below) = (x.x(*tick), bottom + 18.0);
            let label = match self.x {
                X::Linear(..) => x.tick_text(*tick),
                X::Percentile => percentile_text(*tick),
            };
            let _ = write!(
                page,
                "<line class=\"grid\" x1=\"{px:.1}\" x2=\"{px:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
                 <text class=\"tick\" x=\"{px:.1}\" y=\"{below}\" text-anchor=\"middle\">{}</text>",
                escape(&label)
            );
        }
        let label = match self.x {
            X::Linear(label, _) => label,
            X::Percentile => "percentile (each step leaves a tenth of the rest)",
        };
        let (middle, below) = ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10.0);
        let _ = write!(
            page,
            "<text class=\"label\" x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">{}</text>",
            escape(label)
        );
    }

    fn y_axis(&self, page: &mut String, y: &Scale) {
        for tick in &y.ticks {
            let (py, left, right) = (y.y(*tick), LEFT - 8.0, WIDTH - RIGHT);
            let _ = write!(
                page,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{py:.1}\" y2=\"{py:.1}\"/>\
                 <text class=\"tick\" x=\"{left}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                py + 4.0,
                escape(&y.tick_text(*tick))
            );
        }
        let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
        let _ = write!(
            page,
            "<text class=\"label\" transform=\"translate(16 {middle}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text>",
            escape(self.y_label)
        );
    }

    /// Names of marks stand above the plot, to the side that has room; one that would run into
    /// the one before it goes a row higher.
    fn draw_marks(&self, page: &mut String, x: &Scale) {
        let mut before: Option<f64> = None;
        for mark in &self.marks {
            let px = x.x(mark.x);
            let left = px > WIDTH * 0.8;
            let (anchor, text_x) = if left { ("end", px + 2.0) } else { ("start", px - 2.0) };
            let near = before.is_some_and(|before| (px - before).abs() < MARK_ROOM);
            before = if near { None } else { Some(px) };
            let text_y = if near { TOP - 22.0 } else { TOP - 7.0 };
            let (top, bottom) = (TOP - 4.0, HEIGHT - BOTTOM);
            let _ = write!(
                page,
                "<line class=\"mark\" x1=\"{px:.1}\" x2=\"{px:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>\
                 <text class=\"mark\" x=\"{text_x:.1}\" y=\"{text_y}\" text-anchor=\"{anchor}\">{}\
                 </text>",
                escape(&mark.label)
            );
        }
    }
}

impl Line {
    fn render(&self, page: &mut String, xs: &[f64], x: &Scale, y: &Scale) {
        let mut path = String::new();
        let mut before: Option<f64> = None;
        for (at, value) in xs.iter().zip(&self.values) {
            let px = x.x(*at);
            let Some(value) = value.filter(|value| y.has(*value)) else {
                if self.steps && before.is_some() {
                    let _ = write!(path, "H{px:.1}");
                }
                before = None;
                continue;
            };
            let py = y.y(value);
            let _ = match before {
                None => write!(path, "M{px:.1} {py:.1}"),
                Some(_) if self.steps => write!(path, "H{px:.1}V{py:.1}"),
                Some(_) => write!(path, "L{px:.1} {py:.1}"),
            };
            // A lone value is a dot: a line of no length with round ends.
            if before.is_none() {
                path.push_str("h0");
            }
            before = Some(py);
        }
        let dashed = if self.dashed { " dashed" } else { "" };
        let color = self.color % 6;
        let _ = write!(page, "<path class=\"line c{color}{dashed}\" d=\"{path}\"/>");
    }
}

impl Scale {
    /// About eight ticks between `from` and `to`.
    fn linear(from: f64, to: f64) -> Self {
        let to = if to > from { to } else { from + 1.0 };
        let step = nice_step((to - from) / 8.0);
        let first = (from / step).ceil();
        let ticks = (0..12).map(|n| (first + f64::from(n)) * step);
        let ticks = ticks.take_while(|tick| *tick <= to + step * 1e-6).collect();
        Self { from, to, log: false, ticks }
    }

    /// From 0 to the first tick above `top`.
    fn headroom(top: f64) -> Self {
        let top = if top > 0.0 { top } else { 1.0 };
        let step = nice_step(top / 4.0);
        let count = (top / step - 1e-6).ceil().clamp(1.0, 12.0);
        let ticks = (0..=count as u32).map(|n| f64::from(n) * step).collect();
        Self { from: 0.0, to: count * step, log: false, ticks }
    }

    /// Whole decades around the values that are above 0.
    fn log(values: &[f64], top: f64) -> Self {
        let lowest = values.iter().copied().filter(|value| *value > 0.0).fold(f64::MAX, f64::min);
        let top = if top > 0.0 { top } else { 1.0 };
        let to = (top.log10() - 1e-9).ceil().clamp(-9.0, 300.0);
        let from = (lowest.log10() + 1e-9).floor().clamp(to - 7.0, to - 1.0);
        let step = if to - from > 5.0 { 2 } else { 1 };
        let mut ticks = Vec::new();
        for decade in (from as i32..=to as i32).step_by(step) {
            let unit = 10_f64.powi(decade);
            ticks.push(unit);
            if to - from < 2.5 && f64::from(decade) < to {
                ticks.extend([unit * 2.0, unit * 5.0]);
            }
        }
        Self { from: 10_f64.powf(from), to: 10_f64.powf(to), log: true, ticks }
    }

    fn percentile(to: f64) -> Self {
        let to = to.clamp(1.0, 9.0);
        let ticks = std::iter::once(0.0)
            .chain([0.5_f64, 0.75].map(|p| -(1.0 - p).log10()))
            .chain((1..=to.floor() as u32).map(f64::from))
            .collect();
        Self { from: 0.0, to, log: false, ticks }
    }

    /// 0 has no place on a logarithmic axis.
    fn has(&self, value: f64) -> bool {
        value.is_finite() && (!self.log || value > 0.0)
    }

    /// 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let share = match self.log {
            true => {
                let value = value.max(self.from);
                (value / self.from).log10() / (self.to / self.from).log10()
            }
            false => (value - self.from) / (self.to - self.from),
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.share(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.share(value) * (HEIGHT - TOP - BOTTOM)
    }

    /// As many decimals as the distance of the ticks needs.
    fn tick_text(&self, tick: f64) -> String {
        if self.log || tick.abs() >= 1000.0 {
            return short(tick);
        }
        let step = match self.ticks.as_slice() {
            [a, b, ..] => b - a,
            _ => 1.0,
        };
        let decimals = (0..4).find(|d| (step * 10_f64.powi(*d)).fract() < 1e-6).unwrap_or(4);
        format!("{tick:.*}", decimals as usize)
    }
}

/// The next of 1, 2, 2.5, 5 times a power of ten.
fn nice_step(least: f64) -> f64 {
    let unit = 10_f64.powf(least.max(1e-9).log10().floor());
    let factor = [1.0, 2.0, 2.5, 5.0].into_iter().find(|factor| unit * factor >= least * 0.999_999);
    unit * factor.unwrap_or(10.0)
}

/// 2 as 99 %: what x of a percentile axis stands for.
fn percentile_text(x: f64) -> String {
    let percent = (1.0 - 10_f64.powf(-x)) * 100.0;
    let decimals = (x.floor() as usize).saturating_sub(2).min(7);
    let text = format!("{percent:.*}", decimals + usize::from(x.fract() > 1e-6 && x > 1.0));
    format!("{text} %")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        assert_eq!(Scale::headroom(870.0).ticks, [0.0, 250.0, 500.0, 750.0, 1000.0]);
        assert_eq!(Scale::linear(0.0, 7.0).ticks, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        let log = Scale::log(&[0.0, 0.3, 40.0], 40.0);
        assert_eq!(log.ticks, [0.1, 1.0, 10.0, 100.0]);
        assert!(!log.has(0.0) && log.has(0.1) && Scale::headroom(1.0).has(0.0));
    }

    #[test]
    fn percentiles_have_the_digits_that_tell_them_apart() {
        let texts = [0.0, 1.0, 2.0, 3.0, 4.0].map(percentile_text);
        assert_eq!(texts, ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }

    #[test]
    fn a_step_goes_on_to_the_gap_behind_it() {
        let values = vec![Some(1.0), None, Some(1.0)];
        let line = Line { name: String::new(), color: 0, dashed: false, steps: true, values };
        let (x, y, mut page) = (Scale::linear(0.0, 2.0), Scale::headroom(1.0), String::new());
        line.render(&mut page, &[0.0, 1.0, 2.0], &x, &y);
        let (left, middle, right) = (x.x(0.0), x.x(1.0), x.x(2.0));
        let path = format!("M{left:.1} {TOP:.1}h0H{middle:.1}M{right:.1} {TOP:.1}h0");
        assert!(page.contains(&path), "{path} in {page}");
    }

    #[test]
    fn no_value_makes_a_scale_that_is_not_a_number() {
        for top in [0.0, f64::MIN_POSITIVE, 1e300, f64::MAX] {
            for scale in [Scale::headroom(top), Scale::log(&[top], top), Scale::linear(0.0, top)] {
                assert!(scale.y(top).is_finite() && scale.ticks.len() < 30, "{top:e}");
            }
        }
    }
}
