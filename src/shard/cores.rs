//! Which cores there are, and which the shards run on.

use std::fs;

/// The cores that this process may run on, in order: those of its affinity mask (a container
/// narrows it) that are online.
///
/// Without a readable `/proc` and `/sys` the count of the standard library stands in.
pub fn available() -> Vec<usize> {
    let allowed = fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        parse_list(line.trim())
    });
    let online = fs::read_to_string("/sys/devices/system/cpu/online")
        .ok()
        .and_then(|list| parse_list(list.trim()));
    match (allowed, online) {
        (Some(mut allowed), Some(online)) => {
            allowed.retain(|core| online.contains(core));
            allowed
        }
        (Some(cores), None) | (None, Some(cores)) => cores,
        (None, None) => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
}

/// Writes cores the way the kernel does: `0-3,8`.
pub fn format_list(cores: &[usize]) -> String {
    let mut text = String::new();
    let mut rest = cores;
    while let Some(&first) = rest.first() {
        let run = rest.iter().zip(first..).take_while(|(core, next)| **core == *next).count();
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&first.to_string());
        if run > 1 {
            text.push_str(&format!("-{}", rest[run - 1]));
        }
        rest = &rest[run..];
    }
    text
}

/// Reads what the kernel writes that way.
pub fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?);
    }
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_list("0-3,8"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(parse_list("5"), Some(vec![5]));
        assert_eq!(parse_list("x"), None);
        for text in ["0-3,8", "5", "0,2,4-5"] {
            assert_eq!(parse_list(text).map(|cores| format_list(&cores)).as_deref(), Some(text));
        }
    }

    #[test]
    fn there_is_a_core() {
        assert!(!available().is_empty());
    }
}
