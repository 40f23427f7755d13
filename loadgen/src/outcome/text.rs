//! Numbers and texts as people and markup want them.

/// 12345 as 12,345.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(super) fn mib(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

/// A number with about three digits that count and no zeros behind them: 0.042, 1.53, 1,530.
pub(super) fn short(number: f64) -> String {
    digits(number, 3)
}

/// The same with about four: for numbers that are looked at for their difference.
pub(super) fn precise(number: f64) -> String {
    digits(number, 4)
}

fn digits(number: f64, count: usize) -> String {
    if !number.is_finite() {
        return "–".into();
    }
    let size = number.abs();
    // Digits before the point.
    let whole = [1.0, 10.0, 100.0, 1000.0].iter().filter(|power| size >= **power).count();
    if whole >= count {
        let sign = if number < 0.0 { "-" } else { "" };
        return format!("{sign}{}", grouped(size.round() as u64));
    }
    let decimals = (count - whole).min(3);
    format!("{number:.decimals$}").trim_end_matches('0').trim_end_matches('.').into()
}

/// A share of 0 to 1 as per cent; never 100 % or 0 % for what is only near.
pub(super) fn percent(share: f64) -> String {
    if share == 0.0 || share == 1.0 {
        return format!("{:.0} %", share * 100.0);
    }
    let text = |decimals: usize| format!("{:.decimals$}", share * 100.0);
    let told = |text: &String| text.parse() != Ok(0.0) && text.parse() != Ok(100.0);
    format!("{} %", (1..6).map(text).find(told).unwrap_or_else(|| text(6)))
}

/// Text for HTML and XML, between tags and in attributes; what XML cannot hold becomes U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(c),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// Text for a terminal: no control character of a file moves the cursor.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let texts = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn numbers_are_short_but_not_wrong() {
        let texts = [0.0, 0.0421, 1.5, 12.34, 1530.4, -200.0, f64::NAN].map(short);
        assert_eq!(texts, ["0", "0.042", "1.5", "12.3", "1,530", "-200", "–"]);
        let texts = [0.0421, 1.2345, 513.36, 10_000.4].map(precise);
        assert_eq!(texts, ["0.042", "1.234", "513.4", "10,000"]);
    }

    #[test]
    fn a_share_that_is_nearly_all_is_not_called_all() {
        let texts = [0.0, 1.0, 0.5, 0.99996, 0.00004].map(percent);
        assert_eq!(texts, ["0 %", "100 %", "50.0 %", "99.996 %", "0.004 %"]);
    }

    #[test]
    fn markup_and_control_characters_are_only_text() {
        assert_eq!(escape("<a b='\"'>&\u{1}"), "&lt;a b=&#39;&quot;&#39;&gt;&amp;\u{fffd}");
        assert_eq!(printable("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
    }
}
