//! From TOML to values, noting every problem on the way.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::address::{check_sent_by, is_ambiguous, is_reached_over_all, parse_listen};
use super::problem::{Problem, Problems, Source};
use super::spec::{self, Number, SECTIONS, Section};
use super::{
    CORE_NUMBER_MAX, CORES_MAX, Config, Cores, EventsConfig, LISTEN_MAX, Origin, Origins,
    ServerConfig, Setting, device, dns, front, pair, tls,
};
use crate::options::{ForeignCallers, Limits, Options, SIP_INVITE_TIMEOUT_DEFAULT};
use crate::target::{Target, Transport};

/// A value and where it stands.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// Bytes of a path.
pub(super) const PATH_BYTES_MAX: usize = 4000;
/// Recommended values of the delay, in milliseconds.
const RETRY_AFTER_RECOMMENDED: std::ops::RangeInclusive<u64> = 500..=5000;
/// Up to this size all syntax errors of a file are told, above it only the first: a large file that
/// is no TOML at all has millions.
const SYNTAX_RECOVERY_BYTES_MAX: usize = 256 << 10;

pub(super) fn read(file: &str, text: &str) -> Result<Config, Problems> {
    let source = Source::new(text);
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => return Err(syntax_problems(file, &source, error)),
    };
    let mut reader = Reader::new(file, &source);
    let config = reader.config(root.get_ref());
    reader.errors.sort();
    reader.warnings.sort();
    if reader.errors.is_empty() {
        Ok(Config { warnings: reader.warnings, ..config })
    } else {
        Err(reader.errors)
    }
}

fn syntax_problems(file: &str, source: &Source<'_>, first: toml::de::Error) -> Problems {
    let errors = if source.text.len() <= SYNTAX_RECOVERY_BYTES_MAX {
        DeTable::parse_recoverable(source.text).1
    } else {
        vec![first]
    };
    let mut problems = Problems::new(file);
    for error in errors {
        problems.add_with(|| {
            let at = error.span().map(|span| span.start);
            let quoted = at.map(|at| source.quote_line(at)).filter(|line| !line.is_empty());
            let quoted = quoted.map_or(String::new(), |line| format!(" in `{line}`"));
            let text = format!("no TOML: {}{quoted}", error.message());
            Problem { line: at.map(|at| source.line(at)), text }
        });
    }
    problems.sort();
    problems
}

/// What is read so far, and what is wrong with it.
pub(super) struct Reader<'a> {
    source: &'a Source<'a>,
    pub(super) errors: Problems,
    pub(super) warnings: Problems,
    pub(super) origins: Origins,
}

/// True for what can be a path and needs no escape where it is shown.
pub(super) fn is_plain_path(text: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && !matches!(c, '"' | '\\');
    (1..=PATH_BYTES_MAX).contains(&text.len()) && text.chars().all(is_plain)
}

impl<'a> Reader<'a> {
    fn new(file: &str, source: &'a Source<'a>) -> Self {
        let origins = Origins { file: file.to_owned(), ..Origins::default() };
        let (errors, warnings) = (Problems::new(file), Problems::new(file));
        Self { source, errors, warnings, origins }
    }

    fn config(&mut self, root: &DeTable<'_>) -> Config {
        self.check_sections(root);
        let empty = DeTable::new();
        let tables = ["server", "limits", "TServer", "tls", "dns", "proxy", "metrics", "events"]
            .map(|name| {
                let table = self.section(root, name).unwrap_or(&empty);
                if let Some(section) = SECTIONS.iter().find(|section| section.name == name) {
                    self.check_names(table, section);
                }
                table
            });
        let [server_table, limits, tserver, tls, dns, proxy, metrics, events] = tables;
        let (mut server, sent_by, foreign_callers) = self.server(server_table);
        let served = server.listen.iter().any(|target| target.transport == Transport::Tls);
        let tls = tls::read(self, tls, served);
        let dns = dns::read(self, dns);
        let limits = self.limits(limits);
        let millis = self.number(tserver, &spec::RETRY_AFTER);
        let retry_after = Duration::from_millis(millis);
        let sip_invite_timeout = self.seconds(tserver, &spec::SIP_INVITE_TIMEOUT);
        let responses = self.transport_error_responses(tserver);
        let mut options = Options::default();
        options.transport_error_responses = responses;
        [options.sent_by, options.sent_by_tls] = sent_by;
        options.retry_after = retry_after;
        options.sip_invite_timeout = sip_invite_timeout;
        options.foreign_callers = foreign_callers;
        options.proxy_protocol_from = front::read(self, server_table);
        options.limits = limits;
        server.metrics = self.metrics(metrics);
        server.events = self.events(events);
        options.events = server.events.wanted();
        let line = self.line_of(tserver, spec::RETRY_AFTER.name);
        self.check_delay(retry_after, options.window(), line);
        pair::read(self, root, server_table, proxy, &mut options);
        let devices = device::read(self, root, options.window());
        device::check_sockets(self, &devices, &server.listen);
        Config {
            server,
            options: options.with_devices(devices),
            tls,
            dns,
            warnings: Problems::default(),
            origins: std::mem::take(&mut self.origins),
        }
    }

    fn server(&mut self, table: &DeTable<'_>) -> (ServerConfig, [String; 2], ForeignCallers) {
        let listen = self.listen(table);
        let cores = self.cores(table);
        let choices = [("off", false), ("on", true)];
        let huge_pages = self.chosen("server", table, "huge-pages", choices);
        let sent_by = self.sent_by(table, &listen);
        let sent_by_tls = self.sent_by_tls(table, &listen, &sent_by);
        let drain_timeout = self.seconds(table, &spec::DRAIN_TIMEOUT);
        let choices = [("refuse", ForeignCallers::Refuse), ("relay", ForeignCallers::Relay)];
        let foreign = self.chosen("server", table, "foreign-callers", choices);
        let (metrics, events) = (None, EventsConfig::default());
        let server = ServerConfig { listen, cores, huge_pages, drain_timeout, metrics, events };
        (server, [sent_by, sent_by_tls], foreign)
    }

    fn listen(&mut self, table: &DeTable<'_>) -> Vec<Target> {
        const EXPECTED: &str = "a list such as [\"tcp:192.0.2.1:5060\"]";
        let Some(value) = table.get("listen") else {
            self.error(None, format!("listen is missing in [server]; expected {EXPECTED}"));
            return Vec::new();
        };
        let Some(entries) = self.array("listen", value, EXPECTED) else { return Vec::new() };
        if entries.is_empty() || entries.len() > LISTEN_MAX {
            let text = format!("listen has {} entries; expected 1 to {LISTEN_MAX}", entries.len());
            self.error(Some(value), text);
        }
        let mut listen: Vec<Target> = Vec::new();
        for entry in entries.iter().take(LISTEN_MAX) {
            let Some(text) =
                self.string("listen", entry, "a string such as \"tcp:192.0.2.1:5060\"")
            else {
                continue;
            };
            match parse_listen(text) {
                Ok(target) if listen.contains(&target) => {
                    self.error(Some(entry), format!("listen names {target} twice"));
                }
                Ok(target) if listen.iter().any(|other| is_ambiguous(*other, target)) => {
                    let text = format!(
                        "listen names {target} beside another udp address of its family: a datagram \
                         could be sent from either"
                    );
                    self.error(Some(entry), text);
                }
                Ok(target) => listen.push(target),
                Err(reason) => self.error(Some(entry), format!("listen \"{text}\" {reason}")),
            }
        }
        let written: Vec<_> = listen.iter().map(|target| format!("\"{target}\"")).collect();
        self.set("server", "listen", format!("[{}]", written.join(", ")), "", Some(value));
        listen
    }

    /// Where metrics are served.
    fn metrics(&mut self, table: &DeTable<'_>) -> Option<SocketAddr> {
        let value = table.get("listen")?;
        let text = self.string("listen", value, "a string such as \"127.0.0.1:9090\"")?;
        let reason = match text.parse::<SocketAddr>() {
            Err(_) => "is not of the form IP:PORT or [IPv6]:PORT",
            Ok(address) if address.port() == 0 => "has port 0: scrapers need one that stays",
            Ok(address) if !address.ip().is_loopback() => {
                "is no loopback address: metrics are served to this machine only"
            }
            Ok(address) => {
                self.set("metrics", "listen", format!("\"{address}\""), "", Some(value));
                return Some(address);
            }
        };
        self.error(Some(value), format!("listen \"{text}\" in [metrics] {reason}"));
        None
    }

    fn events(&mut self, table: &DeTable<'_>) -> EventsConfig {
        let file = self.path("events", table, "file");
        let socket = self.path("events", table, "socket");
        let queue_max = self.number(table, &spec::EVENTS_QUEUE_MAX) as usize;
        EventsConfig { file, socket, queue_max }
    }

    /// A path.
    pub(super) fn path(
        &mut self,
        section: &'static str,
        table: &DeTable<'_>,
        name: &'static str,
    ) -> Option<PathBuf> {
        let value = table.get(name)?;
        let text = self.string(name, value, "a string: a path")?;
        if !is_plain_path(text) {
            let text = format!(
                "{name} is no path: expected 1 to {PATH_BYTES_MAX} bytes without quotes, \
                 backslashes and control characters"
            );
            self.error(Some(value), text);
            return None;
        }
        self.set(section, name, format!("\"{text}\""), "", Some(value));
        Some(PathBuf::from(text))
    }

    fn cores(&mut self, table: &DeTable<'_>) -> Cores {
        const EXPECTED: &str = "\"all\" or a list of core numbers such as [0, 1]";
        let value = table.get("cores");
        let cores = match value.map(|value| (value, value.get_ref())) {
            None => Cores::All,
            Some((_, DeValue::String(text))) if text == "all" => Cores::All,
            Some((value, DeValue::Array(entries))) => {
                if entries.is_empty() || entries.len() > CORES_MAX {
                    let count = entries.len();
                    let text = format!("cores has {count} entries; expected 1 to {CORES_MAX}");
                    self.error(Some(value), text);
                }
                let core = Number {
                    section: "server",
                    name: "cores",
                    unit: "",
                    min: 0,
                    max: CORE_NUMBER_MAX,
                    default: 0,
                };
                let entries = entries.iter().take(CORES_MAX);
                Cores::List(
                    entries.filter_map(|e| Some(self.integer(e, &core)? as usize)).collect(),
                )
            }
            Some((value, _)) => {
                self.wrong("cores", value, EXPECTED);
                Cores::All
            }
        };
        let written = match &cores {
            Cores::All => "\"all\"".to_owned(),
            Cores::List(list) => format!("{list:?}"),
        };
        self.set("server", "cores", written, "", value);
        cores
    }

    fn host_port(&mut self, name: &'static str, value: &Value<'_>, expected: &str) -> String {
        let text = self.string(name, value, expected).unwrap_or_default().to_owned();
        if let (DeValue::String(_), Err(reason)) = (value.get_ref(), check_sent_by(&text)) {
            self.error(Some(value), format!("{name} \"{text}\" {reason}"));
        }
        text
    }

    /// The same over TLS: `advertise-tls`, else the host of `advertise` and the port of the first tls address
    /// to listen on. Empty where there is none.
    fn sent_by_tls(&mut self, table: &DeTable<'_>, listen: &[Target], sent_by: &str) -> String {
        let value = table.get("advertise-tls");
        let first = listen.iter().find(|target| target.transport == Transport::Tls);
        let sent_by = match (value, first) {
            (Some(value), _) => {
                self.host_port("advertise-tls", value, "a string such as \"sip.example.com:5061\"")
            }
            (None, Some(first)) => {
                let host = sent_by.rsplit_once(':').map_or(sent_by, |(host, _)| host);
                format!("{host}:{}", first.address.port())
            }
            (None, None) => return String::new(),
        };
        self.set("server", "advertise-tls", format!("\"{sent_by}\""), "", value);
        sent_by
    }

    /// What Via and Contact name: `advertise`, else the first address to listen on.
    fn sent_by(&mut self, table: &DeTable<'_>, listen: &[Target]) -> String {
        let value = table.get("advertise");
        let sent_by = match value {
            Some(value) => {
                self.host_port("advertise", value, "a string such as \"sip.example.com:5060\"")
            }
            None => {
                let plain = listen.iter().find(|target| target.transport != Transport::Tls);
                let first = plain.or(listen.first()).map(|target| target.address);
                if !is_reached_over_all(listen) {
                    let text = "advertise is missing: the first tcp and the first udp address of \
                                listen differ; expected one host and port for both";
                    self.error(table.get("listen"), text.to_owned());
                }
                if let Some(wildcard) = first.filter(|address| address.ip().is_unspecified()) {
                    let text = format!(
                        "advertise is missing: peers cannot reach {wildcard}; expected the host and \
                         port that they can, such as \"sip.example.com:{}\"",
                        wildcard.port()
                    );
                    self.error(table.get("listen"), text);
                }
                first.map(|address| address.to_string()).unwrap_or_default()
            }
        };
        self.set("server", "advertise", format!("\"{sent_by}\""), "", value);
        sent_by
    }

    /// Statuses that count as a transport failure of a re-INVITE, without repetitions.
    fn transport_error_responses(&mut self, table: &DeTable<'_>) -> Vec<u16> {
        let spec = &spec::TRANSPORT_ERROR_RESPONSE;
        let value = table.get(spec.name);
        let expected = "a list of statuses such as [430, 477]";
        let entries = value.and_then(|value| self.array(spec.name, value, expected));
        let mut statuses = Vec::new();
        for entry in entries.into_iter().flat_map(|entries| entries.iter()) {
            let status = self.integer(entry, spec).map(|status| status as u16);
            match status {
                Some(408 | 481) => {
                    let text = "they end the dialog (RFC 3261 §12.2.1.2) and cannot be listed";
                    self.error(Some(entry), format!("{} has 408 or 481: {text}", spec.name));
                }
                // At most 300 different ones.
                Some(status) if !statuses.contains(&status) => statuses.push(status),
                Some(_) | None => {}
            }
        }
        self.set(spec.section, spec.name, format!("{statuses:?}"), "", value);
        statuses
    }

    fn limits(&mut self, table: &DeTable<'_>) -> Limits {
        // The ranges keep each value within its type on every target.
        Limits {
            flows_max: self.number(table, &spec::FLOWS_MAX) as u32,
            calls_max: self.number(table, &spec::CALLS_MAX) as u32,
            calls_per_second_max: self.number(table, &spec::CALLS_PER_SECOND_MAX) as u32,
            queueing_delay_max: self.millis(table, &spec::QUEUEING_DELAY_MAX),
            outbox_bytes_max: self.number(table, &spec::OUTBOX_BYTES_MAX) as usize,
            message_bytes_max: self.number(table, &spec::MESSAGE_BYTES_MAX) as usize,
            message_timeout: self.seconds(table, &spec::MESSAGE_TIMEOUT),
            first_message_timeout: self.seconds(table, &spec::FIRST_MESSAGE_TIMEOUT),
            connect_timeout: self.millis(table, &spec::CONNECT_TIMEOUT),
            tcp_user_timeout: self.millis(table, &spec::TCP_USER_TIMEOUT),
            tcp_keepalive: self.seconds(table, &spec::TCP_KEEPALIVE),
            ping_interval: self.millis(table, &spec::PING_INTERVAL),
            tls_handshakes_max: self.number(table, &spec::TLS_HANDSHAKES_MAX) as u32,
            tls_handshake_timeout: self.seconds(table, &spec::TLS_HANDSHAKE_TIMEOUT),
            flows_per_source_max: self.number(table, &spec::FLOWS_PER_SOURCE_MAX) as u32,
            messages_per_second_max: self.number(table, &spec::MESSAGES_PER_SECOND_MAX) as u32,
        }
    }

    fn millis(&mut self, table: &DeTable<'_>, spec: &Number) -> Duration {
        Duration::from_millis(self.number(table, spec))
    }

    pub(super) fn seconds(&mut self, table: &DeTable<'_>, spec: &Number) -> Duration {
        Duration::from_secs(self.number(table, spec))
    }

    /// The number in force, noted with its origin.
    fn number(&mut self, table: &DeTable<'_>, spec: &Number) -> u64 {
        let value = table.get(spec.name);
        let number = value.and_then(|value| self.integer(value, spec)).unwrap_or(spec.default);
        self.set(spec.section, spec.name, number.to_string(), spec.unit, value);
        number
    }

    /// Warns of a delay that is allowed but hardly meant; `line` is `None` where it is not written.
    pub(super) fn check_delay(&mut self, delay: Duration, window: Duration, line: Option<usize>) {
        let Some(line) = line.filter(|_| !delay.is_zero()) else { return };
        let (name, millis) = (spec::RETRY_AFTER.name, delay.as_millis() as u64);
        if delay >= window {
            let text = format!(
                "{name} is {millis} ms, not shorter than the window of {} s \
                 (sip-invite-timeout): no attempt can be repeated",
                window.as_secs()
            );
            self.warnings.add(Some(line), text);
        } else if !RETRY_AFTER_RECOMMENDED.contains(&millis) {
            let (low, high) = RETRY_AFTER_RECOMMENDED.into_inner();
            let text = format!("{name} is {millis} ms, outside the recommended {low} to {high} ms");
            self.warnings.add(Some(line), text);
        }
    }

    fn check_sections(&mut self, root: &DeTable<'_>) {
        let names = SECTIONS.map(|section| section.name);
        for (key, value) in root {
            let name: &str = key.get_ref();
            if names.contains(&name) {
                continue;
            }
            let home = SECTIONS.iter().find(|section| section.options.contains(&name));
            let is_table = matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_));
            let text = match home {
                Some(home) => format!("option `{name}` is outside its section [{}]", home.name),
                None if is_table => format!("unknown section [{name}]{}", meant(name, &names)),
                None => format!("unknown option `{name}` outside any section"),
            };
            self.errors.add(Some(self.source.line(key.span().start)), text);
        }
    }

    pub(super) fn check_names(&mut self, table: &DeTable<'_>, section: &Section) {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if section.options.contains(&name) {
                continue;
            }
            let home = SECTIONS.iter().find(|section| section.options.contains(&name));
            let hint = match home {
                Some(home) => format!("; it belongs to [{}]", home.name),
                None => meant(name, section.options),
            };
            let text = format!("unknown option `{name}` in [{}]{hint}", section.name);
            self.errors.add(Some(self.source.line(key.span().start)), text);
        }
    }

    fn section<'t>(
        &mut self,
        root: &'t DeTable<'t>,
        name: &'static str,
    ) -> Option<&'t DeTable<'t>> {
        let value = root.get(name)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong(name, value, &format!("a section [{name}], once"));
        }
        table
    }

    /// An integer in range; noted as an error when it is none.
    pub(super) fn integer(&mut self, value: &Value<'_>, spec: &Number) -> Option<u64> {
        let Number { name, unit, min, max, .. } = spec;
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong(name, value, &format!("a whole number from {min} to {max}{unit}"));
            return None;
        };
        let digits = integer.as_str();
        let negative = digits.starts_with('-') && digits.bytes().any(|b| matches!(b, b'1'..=b'9'));
        let digits = digits.trim_start_matches(['-', '+']);
        let number = u64::from_str_radix(digits, integer.radix()).unwrap_or(u64::MAX);
        let written = self.source.quote(value.span());
        if negative || number < *min {
            self.error(
                Some(value),
                format!("{name} is {written}, below the minimum of {min}{unit}"),
            );
            return None;
        }
        if number > *max {
            self.error(Some(value), format!("{name} is {written}, above the limit of {max}{unit}"));
            return None;
        }
        Some(number)
    }

    pub(super) fn string<'v>(
        &mut self,
        name: &str,
        value: &'v Value<'_>,
        expected: &str,
    ) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong(name, value, expected);
        }
        text
    }

    pub(super) fn array<'v, 'i>(
        &mut self,
        name: &str,
        value: &'v Value<'i>,
        expected: &str,
    ) -> Option<&'v toml::de::DeArray<'i>> {
        let array = value.get_ref().as_array();
        if array.is_none() {
            self.wrong(name, value, expected);
        }
        array
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &str,
        value: &Value<'_>,
        choices: &[(&'static str, T)],
    ) -> Option<(&'static str, T)> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let expected = match words.split_last() {
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => String::new(),
        };
        let text = self.string(name, value, &format!("a string: {expected}"))?;
        let found = choices.iter().find(|(word, _)| *word == text).copied();
        if found.is_none() {
            let written = self.source.quote(value.span());
            let text = format!("{name} is {written}; expected {expected}{}", meant(text, &words));
            self.error(Some(value), text);
        }
        found
    }

    /// What an option says with one of several words; the first of them is the default.
    pub(super) fn chosen<T: Copy, const N: usize>(
        &mut self,
        section: &'static str,
        table: &DeTable<'_>,
        name: &'static str,
        choices: [(&'static str, T); N],
    ) -> T {
        let value = table.get(name);
        let found = value.and_then(|value| self.choice(name, value, &choices));
        let (word, chosen) = found.unwrap_or(choices[0]);
        self.set(section, name, format!("\"{word}\""), "", value);
        chosen
    }

    /// Notes that a value has the wrong type.
    pub(super) fn wrong(&mut self, name: &str, value: &Value<'_>, expected: &str) {
        let what = match value.get_ref() {
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
            scalar => {
                let kind = scalar.type_str();
                let article = if kind.starts_with('i') { "an" } else { "a" };
                format!("{}, {article} {kind}", self.source.quote(value.span()))
            }
        };
        self.error(Some(value), format!("{name} is {what}; expected {expected}"));
    }

    pub(super) fn error(&mut self, value: Option<&Value<'_>>, text: String) {
        self.errors.add(value.map(|value| self.line(value)), text);
    }

    pub(super) fn line(&self, value: &Value<'_>) -> usize {
        self.source.line(value.span().start)
    }

    pub(super) fn line_of(&self, table: &DeTable<'_>, name: &str) -> Option<usize> {
        table.get(name).map(|value| self.line(value))
    }

    pub(super) fn set(
        &mut self,
        section: &'static str,
        name: &'static str,
        value: String,
        unit: &'static str,
        written: Option<&Value<'_>>,
    ) {
        let default = match name {
            "advertise" => ", the first address of listen",
            "sip-invite-timeout" => ", which means 32 s",
            "servers" => ", those of /etc/resolv.conf",
            _ => "",
        };
        let origin =
            written.map_or(Origin::Default(default), |value| Origin::Line(self.line(value)));
        self.origins.settings.push(Setting { section, name, value, unit, origin });
    }
}

fn meant(name: &str, candidates: &[&str]) -> String {
    spec::near(name, candidates).map_or(String::new(), |near| format!("; did you mean `{near}`?"))
}

const _: () = assert!(SIP_INVITE_TIMEOUT_DEFAULT.as_secs() == 32, "the texts above say 32 s");

/// First seen numbers or prefixes, with the line of their device.
pub(super) type Seen = HashMap<String, usize>;
