//! The comparison as a page.

use std::fmt::Write as _;

use super::super::html::{Cell, page, recovery_curves, table};
use super::super::text::{escape, grouped};
use super::{Comparison, Judgement, letter};

impl Comparison {
    /// One page that needs nothing else.
    pub(crate) fn to_html(&self) -> String {
        let names: Vec<&str> = self.sides.iter().map(|side| side.name.as_str()).collect();
        let title = format!("Comparison of {}", names.join(", "));
        let mut body = String::new();
        let _ = write!(body, "<header><h1>{}</h1></header>", escape(&title));
        if !self.warnings.is_empty() {
            body.push_str("<ul class=\"reasons\">");
            for warning in &self.warnings {
                let _ = write!(body, "<li>{}</li>", escape(warning));
            }
            body.push_str("</ul>");
        }
        self.write_sides(&mut body);
        let runs: Vec<_> = self
            .sides
            .iter()
            .filter_map(|side| Some((side.name.clone(), side.runs.first()?)))
            .collect();
        recovery_curves(&mut body, &runs);
        for number in 1..self.sides.len() {
            self.write_rows(&mut body, number);
        }
        body.push_str(
            "<footer>Median (lowest to highest) of each side's runs. Within noise: the ranges \
             overlap, or a side has one run and its noise is unknown.</footer>",
        );
        page(&title, &body)
    }

    fn write_sides(&self, body: &mut String) {
        let rows: Vec<Vec<Cell>> = self
            .sides
            .iter()
            .enumerate()
            .map(|(number, side)| {
                let first = side.runs.first();
                let date = first.map_or_else(String::new, |run| run.manifest.date.clone());
                let server = first.and_then(|run| run.manifest.server.as_ref());
                let server = server.map_or_else(|| "not told".into(), |s| s.version.clone());
                vec![
                    Cell::Text(letter(number)),
                    Cell::Text(side.name.clone()),
                    Cell::Figure(grouped(side.runs.len() as u64)),
                    Cell::Text(date),
                    Cell::Text(server),
                ]
            })
            .collect();
        body.push_str("<section><h2>Sides</h2>");
        table(body, &["", "files", "runs", "first run", "server"], &rows);
        body.push_str("</section>\n");
    }

    fn write_rows(&self, body: &mut String, number: usize) {
        let rows = self.rows.iter().map(|row| {
            let judgement = match row.judge(number) {
                Some(judgement @ Judgement::Better) => Cell::Mark(true, judgement.text().into()),
                Some(judgement @ Judgement::Worse) => Cell::Mark(false, judgement.text().into()),
                Some(judgement) => Cell::Text(judgement.text().into()),
                None => Cell::Text(String::new()),
            };
            vec![
                Cell::Text(row.figure.label()),
                Cell::Figure(row.text(0)),
                Cell::Figure(row.text(number)),
                Cell::Figure(row.ratio(number)),
                judgement,
            ]
        });
        let b = letter(number);
        let chance = escape(&self.chance(number));
        let _ = write!(body, "<section><h2>{b} against A</h2><p>{chance}</p>");
        table(body, &["figure", "A", &b, "ratio", "judgement"], &rows.collect::<Vec<_>>());
        body.push_str("</section>\n");
    }
}
