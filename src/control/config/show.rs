//! Writes the options in force, as TOML, with the origin of each.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use super::device::kind_name;
use super::spec::{RETRY_AFTER, SECTIONS};
use super::{Config, DeviceOrigin, Origin};
use crate::options::{Backup, Device};
use crate::target::Target;

/// Where the origins begin.
const ORIGIN_COLUMN: usize = 58;

impl Config {
    /// Writes every option in force with its unit and where it comes from: `holdfast.toml:14`,
    /// `default`, or for the delay of a device `inherited from [TServer]`.
    ///
    /// The text is a configuration that says the same. A large one takes many writes: hand in a
    /// buffered writer.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_effective(&self, out: &mut dyn Write) -> io::Result<()> {
        let file = &self.origins.file;
        let mut section = "";
        let mut settings: Vec<_> = self.origins.settings.iter().collect();
        // A section stands once, whatever order it was read in.
        settings.sort_by_key(|it| SECTIONS.iter().position(|section| section.name == it.section));
        for setting in settings {
            if setting.section != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                section = setting.section;
                writeln!(out, "{gap}[{section}]")?;
            }
            let option = format!("{} = {}", setting.name, setting.value);
            let unit =
                if setting.unit.is_empty() { String::new() } else { format!("{}, ", setting.unit) };
            match setting.origin {
                Origin::Line(line) => write_line(out, &option, &format!("{unit}{file}:{line}"))?,
                Origin::Default(more) => write_line(out, &option, &format!("{unit}default{more}"))?,
            }
        }
        for (pair, origin) in self.options.pairs.iter().zip(&self.origins.pairs) {
            writeln!(out)?;
            write_line(out, "[[pair]]", &format!("{file}:{}", origin.line))?;
            let [primary, backup] = [0, 1].map(|index| pair.members.get(index).map(Target::uri));
            let texts = [
                ("name", Some(pair.name.clone()), origin.name),
                ("primary", primary, origin.primary),
                ("backup", backup, origin.backup),
            ];
            for (name, value, line) in texts {
                if let (Some(value), Some(line)) = (value, line) {
                    write_line(out, &format!("{name} = \"{value}\""), &format!("{file}:{line}"))?;
                }
            }
            if let Some(line) = origin.sources {
                let list: Vec<_> = pair.sources.iter().map(|ip| format!("\"{ip}\"")).collect();
                let option = format!("sources = [{}]", list.join(", "));
                write_line(out, &option, &format!("{file}:{line}"))?;
            }
        }
        for (device, origin) in self.options.devices().zip(&self.origins.devices) {
            writeln!(out)?;
            write_line(out, "[[device]]", &format!("{file}:{}", origin.line))?;
            self.write_device(out, device, origin)?;
        }
        out.flush()
    }

    fn write_device(
        &self,
        out: &mut dyn Write,
        device: &Device,
        origin: &DeviceOrigin,
    ) -> io::Result<()> {
        // Reading refuses quotes and backslashes in these, so none needs an escape.
        let kind = Some(kind_name(device.kind));
        let proxy_name = device.names.outbound.as_ref();
        let outbound =
            device.outbound.as_ref().map(Target::uri).or(proxy_name.map(|name| name.uri()));
        let texts = [
            ("dn", device.dn.as_deref(), origin.dn),
            ("prefix", device.prefix.as_deref(), origin.prefix),
            ("type", kind, origin.kind),
            ("contact", Some(device.contact.as_str()), origin.contact),
            ("outbound-proxy", outbound.as_deref(), origin.outbound),
            ("tls-name", device.tls_name.as_deref(), origin.tls_name),
        ];
        let file = &self.origins.file;
        for (name, value, line) in texts {
            if let (Some(value), Some(line)) = (value, line) {
                write_line(out, &format!("{name} = \"{value}\""), &format!("{file}:{line}"))?;
            }
        }
        if let Some(line) = origin.backups {
            let transport = device.transport;
            let target = |address: &SocketAddr| Target { transport, address: *address };
            let mut uris: Vec<_> = device.backups.iter().map(|it| target(it).uri()).collect();
            if !device.names.backups.is_empty() {
                let uri = |backup: &Backup| match backup {
                    Backup::Address(address) => target(address).uri(),
                    Backup::Name(name) => name.uri(),
                };
                uris = device.names.backups.iter().map(uri).collect();
            }
            let uris: Vec<_> = uris.iter().map(|uri| format!("\"{uri}\"")).collect();
            let option = format!("contact-backup = [{}]", uris.join(", "));
            write_line(out, &option, &format!("{file}:{line}"))?;
        }
        let name = RETRY_AFTER.name;
        let own = |delay: Duration| format!("TServer = {{ {name} = {} }}", delay.as_millis());
        match (device.retry_after, origin.retry_after) {
            (Some(delay), Some(line)) => {
                write_line(out, &own(delay), &format!("ms, {file}:{line}"))
            }
            // A comment, or the text would give the device a value of its own.
            (Some(_), None) | (None, _) => {
                let inherited = format!("# {}", own(self.options.retry_after));
                write_line(out, &inherited, "ms, inherited from [TServer]")
            }
        }
    }
}

fn write_line(out: &mut dyn Write, option: &str, origin: &str) -> io::Result<()> {
    writeln!(out, "{option:<ORIGIN_COLUMN$} # {origin}")
}
