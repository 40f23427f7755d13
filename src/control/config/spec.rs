//! Every option that a file may set: its name, unit, range and default, in one place.

use crate::options::{RETRY_AFTER_MILLIS_MAX, SIP_INVITE_TIMEOUT_SECS_MAX};

/// A section and the names of its options.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// As written between the brackets.
    pub name: &'static str,
    /// As written before the equals sign.
    pub options: &'static [&'static str],
}

/// All sections. `device` and `pair` repeat.
pub const SECTIONS: [Section; 10] = [
    Section {
        name: "server",
        options: &[
            "role",
            "listen",
            "cores",
            "huge-pages",
            "advertise",
            "advertise-tls",
            "drain-timeout",
            "foreign-callers",
            "proxy-protocol-from",
        ],
    },
    Section {
        name: "limits",
        options: &[
            "flows-max",
            "calls-max",
            "calls-per-second-max",
            "queueing-delay-max",
            "outbox-bytes-max",
            "message-bytes-max",
            "message-timeout",
            "first-message-timeout",
            "connect-timeout",
            "tcp-user-timeout",
            "tcp-keepalive",
            "ping-interval",
            "tls-handshakes-max",
            "tls-handshake-timeout",
            "flows-per-source-max",
            "messages-per-second-max",
        ],
    },
    Section {
        name: "TServer",
        options: &[
            "retry-after-reliable-transport-error",
            "sip-invite-timeout",
            "transport-error-responses",
        ],
    },
    Section {
        name: "device",
        options: &[
            "dn",
            "type",
            "prefix",
            "contact",
            "contact-backup",
            "outbound-proxy",
            "tls-name",
            "TServer",
        ],
    },
    Section { name: "metrics", options: &["listen"] },
    Section { name: "proxy", options: &["oos-check", "oos-force"] },
    Section { name: "pair", options: &["name", "primary", "backup", "sources"] },
    Section {
        name: "tls",
        options: &[
            "certificate",
            "private-key",
            "authorities",
            "client-certificate",
            "client-authorities",
        ],
    },
    Section { name: "dns", options: &["servers", "timeout"] },
    Section { name: "events", options: &["file", "socket", "queue-max"] },
];

/// What `[TServer]` of a device may hold.
pub const DEVICE_TSERVER: Section =
    Section { name: "device.TServer", options: &["retry-after-reliable-transport-error"] };

/// An option that is a whole number.
#[derive(Clone, Copy, Debug)]
pub struct Number {
    /// Its section.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What is counted: `ms`, `s`, `bytes`, `flows`, `calls`, `handshakes`,
    /// `messages/s`.
    pub unit: &'static str,
    /// The least that is taken.
    pub min: u64,
    /// The most that is taken.
    pub max: u64,
    /// What is in force when it is absent.
    pub default: u64,
}

const fn limit(
    name: &'static str,
    unit: &'static str,
    (min, max): (u64, u64),
    default: u64,
) -> Number {
    Number { section: "limits", name, unit, min, max, default }
}

/// How long established calls may go on after a drain began.
pub(super) const DRAIN_TIMEOUT: Number =
    Number { section: "server", name: "drain-timeout", unit: "s", min: 0, max: 3600, default: 30 };
/// `flows_max` of [`Limits`](crate::options::Limits).
pub(super) const FLOWS_MAX: Number = limit("flows-max", "flows", (1, 10_000_000), 100_000);
/// `calls_max` of [`Limits`](crate::options::Limits).
pub(super) const CALLS_MAX: Number = limit("calls-max", "calls", (1, 10_000_000), 1_000_000);
/// `calls_per_second_max` of [`Limits`](crate::options::Limits).
pub(super) const CALLS_PER_SECOND_MAX: Number =
    limit("calls-per-second-max", "calls/s", (0, 10_000_000), 0);
/// `queueing_delay_max` of [`Limits`](crate::options::Limits).
pub(super) const QUEUEING_DELAY_MAX: Number = limit("queueing-delay-max", "ms", (0, 60_000), 200);
/// `outbox_bytes_max` of [`Limits`](crate::options::Limits); room for one message of any size.
pub(super) const OUTBOX_BYTES_MAX: Number =
    limit("outbox-bytes-max", "bytes", (65_536, 1 << 30), 16 << 20);
/// `message_bytes_max` of [`Limits`](crate::options::Limits).
pub(super) const MESSAGE_BYTES_MAX: Number =
    limit("message-bytes-max", "bytes", (4096, 65_535), 65_535);
/// `message_timeout` of [`Limits`](crate::options::Limits).
pub(super) const MESSAGE_TIMEOUT: Number = limit("message-timeout", "s", (1, 3600), 10);
/// `first_message_timeout` of [`Limits`](crate::options::Limits).
pub(super) const FIRST_MESSAGE_TIMEOUT: Number = limit("first-message-timeout", "s", (1, 3600), 60);
/// `connect_timeout` of [`Limits`](crate::options::Limits).
pub(super) const CONNECT_TIMEOUT: Number = limit("connect-timeout", "ms", (100, 60_000), 4000);
/// `tcp_user_timeout` of [`Limits`](crate::options::Limits).
pub(super) const TCP_USER_TIMEOUT: Number = limit("tcp-user-timeout", "ms", (0, 120_000), 3000);
/// `tcp_keepalive` of [`Limits`](crate::options::Limits).
pub(super) const TCP_KEEPALIVE: Number = limit("tcp-keepalive", "s", (0, 7200), 60);
/// `ping_interval` of [`Limits`](crate::options::Limits).
pub(super) const PING_INTERVAL: Number = limit("ping-interval", "ms", (0, 60_000), 1000);
/// `tls_handshakes_max` of [`Limits`](crate::options::Limits).
pub(super) const TLS_HANDSHAKES_MAX: Number =
    limit("tls-handshakes-max", "handshakes", (1, 1_000_000), 1000);
/// `tls_handshake_timeout` of [`Limits`](crate::options::Limits).
pub(super) const TLS_HANDSHAKE_TIMEOUT: Number = limit("tls-handshake-timeout", "s", (1, 3600), 10);
/// `flows_per_source_max` of [`Limits`](crate::options::Limits).
pub(super) const FLOWS_PER_SOURCE_MAX: Number =
    limit("flows-per-source-max", "flows", (1, 10_000_000), 1000);
/// `messages_per_second_max` of [`Limits`](crate::options::Limits).
pub(super) const MESSAGES_PER_SECOND_MAX: Number =
    limit("messages-per-second-max", "messages/s", (100, 10_000_000), 1000);
/// The delay before a failed re-INVITE is sent again, of the application or a device.
pub(super) const RETRY_AFTER: Number = Number {
    section: "TServer",
    name: "retry-after-reliable-transport-error",
    unit: "ms",
    min: 0,
    max: RETRY_AFTER_MILLIS_MAX,
    default: 0,
};
/// The window; 0 stands for 32 s.
pub(super) const SIP_INVITE_TIMEOUT: Number = Number {
    section: "TServer",
    name: "sip-invite-timeout",
    unit: "s",
    min: 0,
    max: SIP_INVITE_TIMEOUT_SECS_MAX,
    default: 0,
};

/// How often a proxy asks each of its servers whether it lives; 0: never.
pub(super) const OOS_CHECK: Number =
    Number { section: "proxy", name: "oos-check", unit: "s", min: 0, max: 3600, default: 30 };
/// How long an answer may take until the server counts as out of service.
pub(super) const OOS_FORCE: Number =
    Number { section: "proxy", name: "oos-force", unit: "s", min: 1, max: 32, default: 5 };

/// Events that wait to be written; room for a second of a busy server.
pub(super) const EVENTS_QUEUE_MAX: Number = Number {
    section: "events",
    name: "queue-max",
    unit: "events",
    min: 16,
    max: 1_000_000,
    default: 16_384,
};

/// An entry of `transport-error-responses`.
pub(super) const TRANSPORT_ERROR_RESPONSE: Number = Number {
    section: "TServer",
    name: "transport-error-responses",
    unit: "",
    min: 400,
    max: 699,
    default: 400,
};

/// How long a DNS server may take to answer.
pub(super) const DNS_TIMEOUT: Number =
    Number { section: "dns", name: "timeout", unit: "s", min: 1, max: 30, default: 2 };

/// All options that are numbers.
pub const NUMBERS: [&Number; 23] = [
    &DRAIN_TIMEOUT,
    &FLOWS_MAX,
    &CALLS_MAX,
    &CALLS_PER_SECOND_MAX,
    &QUEUEING_DELAY_MAX,
    &OUTBOX_BYTES_MAX,
    &MESSAGE_BYTES_MAX,
    &MESSAGE_TIMEOUT,
    &FIRST_MESSAGE_TIMEOUT,
    &CONNECT_TIMEOUT,
    &TCP_USER_TIMEOUT,
    &TCP_KEEPALIVE,
    &PING_INTERVAL,
    &TLS_HANDSHAKES_MAX,
    &TLS_HANDSHAKE_TIMEOUT,
    &FLOWS_PER_SOURCE_MAX,
    &MESSAGES_PER_SECOND_MAX,
    &RETRY_AFTER,
    &SIP_INVITE_TIMEOUT,
    &EVENTS_QUEUE_MAX,
    &OOS_CHECK,
    &OOS_FORCE,
    &DNS_TIMEOUT,
];

/// The candidate that somebody who wrote `name` most likely meant.
pub(super) fn near<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    // A name that long is no slip of the finger, and the table below is quadratic.
    if name.len() > 100 {
        return None;
    }
    let name = name.to_lowercase();
    let distance = |candidate: &&str| {
        let candidate = candidate.to_lowercase();
        let begun = name.len() >= 4 && candidate.starts_with(&name);
        let slips = edits(&name, &candidate);
        (begun || slips <= (candidate.len() / 4).clamp(1, 4)).then_some(slips)
    };
    candidates
        .iter()
        .filter_map(|candidate| Some((distance(candidate)?, *candidate)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements that lead from `from` to `to` (Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in to.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_option_and_another_word_finds_nothing() {
        let names = SECTIONS[2].options;
        for slip in ["retry-after", "retry-after-reliable-transport-errors", "Retry_After_Reliable"]
        {
            let found = near(slip, names);
            assert_eq!(found.is_some(), slip != "Retry_After_Reliable", "{slip}");
        }
        assert_eq!(near("tserver", &["server", "limits", "TServer"]), Some("TServer"));
        assert_eq!(near("dm", &["dn", "type"]), Some("dn"));
        assert_eq!(near("colour", names), None);
    }

    #[test]
    fn every_number_belongs_to_its_section() {
        for number in NUMBERS {
            let section = SECTIONS.iter().find(|section| section.name == number.section);
            assert!(section.is_some_and(|section| section.options.contains(&number.name)));
            assert!((number.min..=number.max).contains(&number.default), "{}", number.name);
        }
    }
}
