//! A configuration that takes the place of the one in force.

use std::collections::HashMap;
use std::fmt;

use super::{Config, Origin};
use crate::options::Device;

/// What a new configuration changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Options with a new value, `[TServer] sip-invite-timeout 0 → 20 s`.
    pub options: Vec<String>,
    /// Options whose new value waits for the next start.
    pub at_start: Vec<&'static str>,
    /// Devices that were not there.
    pub added: usize,
    /// Devices that are gone.
    pub removed: usize,
    /// Devices with another value.
    pub changed: usize,
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, at_start: _, added, removed, changed } = self;
        if options.is_empty() && added + removed + changed == 0 {
            return f.write_str("nothing changed");
        }
        let mut parts = options.clone();
        for (count, what) in [(added, "added"), (removed, "removed"), (changed, "changed")] {
            if *count > 0 {
                parts.push(format!("{count} devices {what}"));
            }
        }
        f.write_str(&parts.join(", "))
    }
}

impl Config {
    /// This configuration in the place of `running`: what is read at the start only stays as it is,
    /// and devices keep their names ([`Options::succeed`](crate::options::Options::succeed)).
    pub fn succeed(mut self, running: &Self) -> (Self, Changes) {
        let mut changes = self.changes(running);
        let (new, old) = (&mut self.server, &running.server);
        let moved = new.listen != old.listen;
        let start = [
            (moved, "[server] listen"),
            (new.cores != old.cores, "[server] cores"),
            (new.huge_pages != old.huge_pages, "[server] huge-pages"),
            (new.metrics != old.metrics, "[metrics] listen"),
            (new.events != old.events, "[events]"),
        ];
        changes.at_start = start.iter().filter(|(new, _)| *new).map(|(_, name)| *name).collect();
        let drain_timeout = new.drain_timeout;
        *new = old.clone();
        new.drain_timeout = drain_timeout;
        if moved && !self.says("server", "advertise") {
            // It follows `listen`, of which the old value is in force.
            self.options.sent_by.clone_from(&running.options.sent_by);
        }
        if moved && !self.says("server", "advertise-tls") {
            self.options.sent_by_tls.clone_from(&running.options.sent_by_tls);
        }
        if self.options.role != running.options.role {
            changes.at_start.push("[server] role");
            self.options.role = running.options.role;
        }
        self.options.events = running.options.events;
        self.options = self.options.succeed(&running.options);
        (self, changes)
    }

    fn says(&self, section: &str, name: &str) -> bool {
        self.origins.settings.iter().any(|setting| {
            (setting.section, setting.name) == (section, name)
                && matches!(setting.origin, Origin::Line(_))
        })
    }

    fn changes(&self, running: &Self) -> Changes {
        let mut changes = Changes::default();
        let start_only = |section: &str, name: &str| {
            matches!(
                (section, name),
                ("server", "role" | "listen" | "cores" | "huge-pages") | ("metrics" | "events", _)
            )
        };
        let before: HashMap<_, _> = running
            .origins
            .settings
            .iter()
            .map(|setting| ((setting.section, setting.name), setting))
            .collect();
        for new in &self.origins.settings {
            let Some(old) = before.get(&(new.section, new.name)) else { continue };
            if old.value != new.value && !start_only(new.section, new.name) {
                let gap = if new.unit.is_empty() { "" } else { " " };
                changes.options.push(format!(
                    "[{}] {} {} → {}{gap}{}",
                    new.section, new.name, old.value, new.value, new.unit
                ));
            }
        }
        let name = |device: &Device| (device.dn.clone(), device.prefix.clone());
        let mut old: HashMap<_, _> =
            running.options.devices().map(|device| (name(device), device)).collect();
        for device in self.options.devices() {
            match old.remove(&name(device)) {
                Some(same) if same == device => {}
                Some(_) => changes.changed += 1,
                None => changes.added += 1,
            }
        }
        changes.removed = old.len();
        changes
    }
}
