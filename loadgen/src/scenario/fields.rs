//! Field files: values for each call, as SIPp's `-inf` reads them.
//!
//! ```text
//! SEQUENTIAL                 or RANDOM, or USER; with ,PRINTF=100 the rows are made from the lines
//! # a comment
//! alice;secret;127.0.0.5     [field0] is alice, [field1] secret
//! bob;hidden;127.0.0.6
//! ```
//! With `PRINTF=n` there are `n` rows: row `k` is line `k` modulo their number, and `%d` in it
//! (with flag `0` and a width, `%05d`) is `k` plus `PRINTFOFFSET`, times `PRINTFMULTIPLE`.

use std::io::Write;

use super::trouble::{Trouble, Troubles, short};

/// Bytes of one file.
pub(crate) const FIELD_FILE_BYTES_MAX: usize = 64 << 20;
/// Lines of one file.
pub(crate) const FIELD_LINES_MAX: usize = 1_000_000;
/// Fields in a line.
pub(crate) const FIELD_COLUMNS_MAX: usize = 64;
/// Bytes of one field: it becomes part of a message.
pub(crate) const FIELD_BYTES_MAX: usize = 4096;
/// Files of one scenario.
pub(crate) const FIELD_FILES_MAX: usize = 8;

/// Reads a file that a scenario names: its bytes, or why there are none.
pub(crate) type Read<'a> = &'a dyn Fn(&str, usize) -> Result<Vec<u8>, String>;

/// How calls take the rows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Sequential,
    Random,
    /// By the number of the user.
    User,
}

/// The rows of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldFile {
    /// As the scenario names it.
    pub(crate) name: String,
    pub(crate) order: Order,
    /// How many rows there are for calls to take; with `PRINTF` this may be more than `lines`.
    pub(crate) rows: u32,
    pub(crate) lines: Vec<Vec<String>>,
    /// `%d` in a field is a number made of the row's.
    pub(crate) numbered: Option<Numbered>,
}

/// What `%d` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbered {
    offset: u32,
    multiple: u32,
}

impl FieldFile {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first line that is not as the format has it, or beyond a limit.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Self, Vec<Trouble>> {
        let only = |line: usize, text: String| Troubles::only(name, line as u32, text);
        if bytes.len() > FIELD_FILE_BYTES_MAX {
            let text = format!("more than the limit of {FIELD_FILE_BYTES_MAX} bytes");
            return Err(only(0, text));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let before = &bytes[..e.valid_up_to()];
            let line = before.iter().filter(|b| **b == b'\n').count() + 1;
            only(line, "is not UTF-8 text".to_owned())
        })?;
        let mut lines = text.lines().enumerate();
        let head = lines.next().map_or("", |(_, head)| head);
        let (order, printed, numbered) = parse_head(head).map_err(|e| only(1, e))?;
        let mut rows = Vec::new();
        for (at, line) in lines {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            if rows.len() == FIELD_LINES_MAX {
                let text = format!("more lines than the limit of {FIELD_LINES_MAX}");
                return Err(only(at + 1, text));
            }
            rows.push(parse_line(line).map_err(|e| only(at + 1, e))?);
        }
        if rows.is_empty() {
            return Err(only(0, "there is no line with fields after the first line".to_owned()));
        }
        let count = printed.unwrap_or(rows.len() as u32);
        let numbered = printed.map(|_| numbered);
        Ok(Self { name: name.to_owned(), order, rows: count, lines: rows, numbered })
    }

    /// The row of a call: `turn` counts the calls (or users, from 0) that took one, `random` is
    /// even over all of `u32`.
    pub(crate) fn row(&self, turn: u64, random: u32) -> u32 {
        match self.order {
            Order::Sequential | Order::User => (turn % u64::from(self.rows)) as u32,
            Order::Random => ((u64::from(random) * u64::from(self.rows)) >> 32) as u32,
        }
    }

    /// Appends a field of a row; nothing when there is none.
    pub(crate) fn write(&self, row: u32, column: u16, out: &mut Vec<u8>) {
        let line = &self.lines[row as usize % self.lines.len()];
        let Some(text) = line.get(usize::from(column)) else { return };
        match self.numbered {
            None => out.extend_from_slice(text.as_bytes()),
            Some(numbered) => numbered.write(text, row, out),
        }
    }
}

impl Numbered {
    fn write(self, text: &str, row: u32, out: &mut Vec<u8>) {
        let value = (u64::from(row) + u64::from(self.offset)) * u64::from(self.multiple);
        let mut rest = text;
        while let Some(percent) = rest.find('%') {
            out.extend_from_slice(&rest.as_bytes()[..percent]);
            let after = &rest[percent + 1..];
            let Some((width, zeros, taken)) = conversion(after) else {
                out.push(b'%');
                rest = after.strip_prefix('%').unwrap_or(after);
                continue;
            };
            let written = match zeros {
                true => write!(out, "{value:0width$}"),
                false => write!(out, "{value:width$}"),
            };
            debug_assert!(written.is_ok(), "a Vec takes every write");
            rest = &after[taken..];
        }
        out.extend_from_slice(rest.as_bytes());
    }
}

/// `d` or `05d` after a percent sign: width, zeros before, bytes taken.
fn conversion(text: &str) -> Option<(usize, bool, usize)> {
    const WIDTH_MAX: usize = 20;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.as_bytes().get(digits).filter(|b| **b == b'd')?;
    let width = if digits == 0 { 0 } else { text[..digits].parse().ok()? };
    (width <= WIDTH_MAX).then_some((width, text.starts_with('0'), digits + 1))
}

fn parse_head(head: &str) -> Result<(Order, Option<u32>, Numbered), String> {
    let allowed = "SEQUENTIAL, RANDOM or USER, with `,PRINTF=n` where wanted";
    let mut parts = head.trim().split(',').map(str::trim);
    let order = match parts.next().unwrap_or_default() {
        "SEQUENTIAL" => Order::Sequential,
        "RANDOM" => Order::Random,
        "USER" => Order::User,
        word => return Err(format!("`{}` in the first line; expected {allowed}", short(word))),
    };
    let (mut printed, mut numbered) = (None, Numbered { offset: 0, multiple: 1 });
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let range = |low: u32| {
            let value: Option<u32> = value.parse().ok();
            let text =
                format!("{name}={}: allowed are {low} to 1000000000", short(value_text(part)));
            value.filter(|n| (low..=1_000_000_000).contains(n)).ok_or(text)
        };
        match name {
            "PRINTF" => printed = Some(range(1)?),
            "PRINTFOFFSET" => numbered.offset = range(0)?,
            "PRINTFMULTIPLE" => numbered.multiple = range(1)?,
            _ => return Err(format!("`{}` in the first line; expected {allowed}", short(part))),
        }
    }
    Ok((order, printed, numbered))
}

fn value_text(part: &str) -> &str {
    part.split_once('=').map_or("", |(_, value)| value)
}

fn parse_line(line: &str) -> Result<Vec<String>, String> {
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err("a control character".to_owned());
    }
    let fields: Vec<String> = line.split(';').map(str::to_owned).collect();
    if fields.len() > FIELD_COLUMNS_MAX {
        return Err(format!("{} fields, above the limit of {FIELD_COLUMNS_MAX}", fields.len()));
    }
    match fields.iter().map(String::len).max() {
        Some(long) if long > FIELD_BYTES_MAX => {
            Err(format!("a field of {long} bytes, above the limit of {FIELD_BYTES_MAX}"))
        }
        _ => Ok(fields),
    }
}

/// The field files of one scenario, as its text and its keywords ask for them.
pub(crate) struct FieldFiles<'a> {
    read: Read<'a>,
    files: Vec<FieldFile>,
}

impl<'a> FieldFiles<'a> {
    pub(crate) fn new(read: Read<'a>) -> Self {
        Self { read, files: Vec::new() }
    }

    /// Reads a file unless it is there.
    ///
    /// # Errors
    /// The file cannot be read, is not as the format has it, or is one too many.
    pub(crate) fn add(&mut self, name: &str) -> Result<u8, String> {
        if let Some(at) = self.files.iter().position(|file| file.name == name) {
            return Ok(at as u8);
        }
        if self.files.len() == FIELD_FILES_MAX {
            return Err(format!("more field files than the limit of {FIELD_FILES_MAX}"));
        }
        let bytes = (self.read)(name, FIELD_FILE_BYTES_MAX)?;
        let file = FieldFile::parse(name, &bytes)
            .map_err(|troubles| troubles.first().map_or(String::new(), Trouble::to_string))?;
        self.files.push(file);
        Ok(self.files.len() as u8 - 1)
    }

    /// The number of the file `name` (`None`: the first) when all its lines have this column.
    ///
    /// # Errors
    /// There is no such file or column.
    pub(crate) fn column(&mut self, name: Option<&str>, column: u16) -> Result<u8, String> {
        let file = match name {
            Some(name) => self.add(name)?,
            None if self.files.is_empty() => return Err("no field file is given".to_owned()),
            None => 0,
        };
        let fields = &self.files[usize::from(file)];
        let least = fields.lines.iter().map(Vec::len).min().unwrap_or(0);
        if usize::from(column) < least {
            Ok(file)
        } else {
            let name = &fields.name;
            Err(format!("{name} has a line with only {least} fields, which count from 0"))
        }
    }

    pub(crate) fn into_files(self) -> Vec<FieldFile> {
        self.files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(file: &FieldFile, row: u32, column: u16) -> String {
        let mut out = Vec::new();
        file.write(row, column, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_are_taken_in_their_order_and_comments_are_none() {
        let file = FieldFile::parse("f", b"SEQUENTIAL\r\na;1\r\n# no\r\n\r\nb;;3\r\n").unwrap();
        assert_eq!((file.order, file.rows), (Order::Sequential, 2));
        assert_eq!((0..4).map(|turn| file.row(turn, 0)).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert_eq!((text(&file, 0, 0), text(&file, 1, 2)), ("a".to_owned(), "3".to_owned()));
        assert_eq!((text(&file, 1, 1), text(&file, 0, 9)), (String::new(), String::new()));
        let random = FieldFile { order: Order::Random, ..file };
        assert_eq!((random.row(7, 0), random.row(7, u32::MAX)), (0, 1));
    }

    #[test]
    fn printed_rows_are_numbered() {
        let head = "USER,PRINTF=1000,PRINTFOFFSET=5,PRINTFMULTIPLE=2";
        let file =
            FieldFile::parse("f", format!("{head}\nu%04d;100%%;%d;%x\n").as_bytes()).unwrap();
        assert_eq!(file.rows, 1000);
        assert_eq!(
            (text(&file, 0, 0), text(&file, 999, 0)),
            ("u0010".to_owned(), "u2008".to_owned())
        );
        assert_eq!((text(&file, 0, 1), text(&file, 1, 2)), ("100%".to_owned(), "12".to_owned()));
        assert_eq!(text(&file, 1, 3), "%x");
        let plain = FieldFile::parse("f", b"SEQUENTIAL\n%d\n").unwrap();
        assert_eq!(text(&plain, 3, 0), "%d");
    }

    #[test]
    fn bad_files_are_refused_with_line_and_limit() {
        let long = format!("RANDOM\n{}", "x".repeat(FIELD_BYTES_MAX + 1));
        let wide = format!("RANDOM\nok\n{}", ";".repeat(FIELD_COLUMNS_MAX));
        let many = format!("RANDOM\n{}", "a\n".repeat(FIELD_LINES_MAX + 1));
        let cases: &[(&[u8], &str)] = &[
            (b"", "f:1: `` in the first line; expected SEQUENTIAL, RANDOM or USER"),
            (b"alice;bob\n", "f:1: `alice;bob` in the first line"),
            (b"USER,COLOR=1\na", "f:1: `COLOR=1` in the first line"),
            (b"USER,PRINTF=0\na", "f:1: PRINTF=0: allowed are 1 to 1000000000"),
            (b"USER,PRINTF\na", "f:1: PRINTF=: allowed are"),
            (b"USER\n# only\n\n", "f: there is no line with fields"),
            (b"USER\na\n\xff\n", "f:3: is not UTF-8 text"),
            (b"USER\na\nb\rVia: x\n", "f:3: a control character"),
            (long.as_bytes(), "f:2: a field of 4097 bytes, above the limit of 4096"),
            (wide.as_bytes(), "f:3: 65 fields, above the limit of 64"),
            (many.as_bytes(), "f:1000002: more lines than the limit of 1000000"),
        ];
        for (bytes, expected) in cases {
            let errors = FieldFile::parse("f", bytes).unwrap_err();
            assert!(errors[0].to_string().starts_with(expected), "{}", errors[0]);
        }
    }

    #[test]
    fn files_of_a_scenario_are_limited_and_read_once() {
        let reads = std::cell::Cell::new(0);
        let read = |_: &str, _: usize| {
            reads.set(reads.get() + 1);
            Ok(b"USER\na;b\n".to_vec())
        };
        let mut files = FieldFiles::new(&read);
        for turn in 0..2 * FIELD_FILES_MAX {
            let name = format!("{}.csv", turn % FIELD_FILES_MAX);
            assert_eq!(files.column(Some(&name), 1), Ok((turn % FIELD_FILES_MAX) as u8));
        }
        assert_eq!(reads.get(), FIELD_FILES_MAX);
        assert!(files.add("ninth.csv").unwrap_err().contains("limit of 8"));
        assert!(files.column(None, 2).unwrap_err().contains("only 2 fields"));
    }
}
