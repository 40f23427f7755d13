//! The file that gets a line for each event.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::line::write_gap;

/// A file that lines are appended to.
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Events that could not be written since the last one that could.
    lost: u64,
    /// True when the last write may have ended within a line.
    torn: bool,
}

impl Journal {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// It cannot be opened, or is something else than a file.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let cannot =
            |error: io::Error| format!("cannot write events to {}: {error}", path.display());
        // Before it is opened: a pipe without a reader would keep the server waiting.
        if fs::metadata(path).is_ok_and(|data| !data.is_file()) {
            let text = "is no file; for a stream of events use socket in [events]";
            return Err(format!("cannot write events: {} {text}", path.display()));
        }
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(cannot)?;
        Ok(Self { path: path.to_owned(), file, lost: 0, torn: false })
    }

    /// Opens the path again, when the file was moved away; the old one is kept when that fails.
    pub(super) fn reopen(&mut self) {
        match Self::open(&self.path) {
            Ok(new) => self.file = new.file,
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// Appends lines of so many events; how many are lost when it cannot.
    pub(super) fn append(&mut self, lines: &[u8], events: u64) -> u64 {
        let mut first = Vec::new();
        if self.torn {
            first.push(b'\n');
        }
        if self.lost > 0 {
            write_gap(&mut first, None, self.lost);
        }
        let written = self.file.write_all(&first).and_then(|()| self.file.write_all(lines));
        match written {
            Ok(()) => {
                (self.lost, self.torn) = (0, false);
                0
            }
            Err(error) => {
                if self.lost == 0 {
                    tracing::error!(
                        "events are lost: cannot write {}: {error}",
                        self.path.display()
                    );
                }
                self.torn = true;
                self.lost += events;
                events
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_written_is_a_gap_before_the_next_line() {
        let path = std::env::temp_dir().join(format!("holdfast-journal-{}", std::process::id()));
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.append(b"one\n", 1), 0);
        let good = std::mem::replace(&mut journal.file, File::open("/dev/null").unwrap());
        assert_eq!(journal.append(b"two\n", 1) + journal.append(b"three\nfour\n", 2), 3);
        journal.file = good;
        assert_eq!(journal.append(b"five\n", 1), 0);
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(text, "one\n\n{\"Event\":\"Gap\",\"Lost\":3}\nfive\n");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        for path in ["/dev/null", "/tmp", "/nowhere/at/all"] {
            assert!(Journal::open(Path::new(path)).is_err(), "{path}");
        }
    }
}
