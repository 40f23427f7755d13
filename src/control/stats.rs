//! What shards hold, as lines of the log.

use std::fmt::Write;
use std::fs;

use crate::net::{NetStats, REASONS};
use crate::shard::Snapshot;
use crate::sip::Stats;

/// Writes one line for each shard, and one for all with the memory of the process.
pub(super) fn log(snapshots: &[Snapshot]) {
    let mut total = Vec::new();
    for snapshot in snapshots {
        let fields = fields(snapshot);
        tracing::info!("stats shard={}{}", snapshot.shard.0, format(&fields));
        if total.is_empty() {
            total = fields;
        } else {
            total.iter_mut().zip(fields).for_each(|((_, sum), (_, value))| *sum += value);
        }
    }
    tracing::info!(
        "stats total shards={} rss_kib={}{}",
        snapshots.len(),
        rss_kib(),
        format(&total)
    );
}

fn format(fields: &[(&str, u64)]) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        let _ = write!(text, " {name}={value}");
    }
    text
}

/// Every number of a snapshot. The patterns name all fields: a new one does not compile until it
/// is shown.
fn fields(snapshot: &Snapshot) -> Vec<(&'static str, u64)> {
    let Snapshot { shard: _, endpoint, counters: _, net, remote_flows, events } = *snapshot;
    let Stats {
        flows,
        calls,
        waiting,
        clients,
        servers,
        timers,
        calls_established,
        calls_lost,
        recoveries_started,
        recoveries_succeeded,
        recoveries_failed,
        messages,
        messages_bad,
    } = endpoint;
    let NetStats {
        tasks,
        outbox_bytes,
        reads,
        queueing: _,
        writes,
        accepted,
        refused,
        refused_source,
        refused_handshake,
        held_back,
        crowded,
        handshakes_failed,
        headers_refused,
        connected,
        accept_errors,
        failed,
        forwarded,
        forward_drops,
    } = net;
    let mut fields = vec![
        ("flows", flows as u64),
        ("calls", calls as u64),
        ("waiting", waiting as u64),
        ("clients", clients as u64),
        ("servers", servers as u64),
        ("timers", timers as u64),
        ("calls_established", calls_established),
        ("calls_lost", calls_lost),
        ("recoveries_started", recoveries_started),
        ("recoveries_succeeded", recoveries_succeeded),
        ("recoveries_failed", recoveries_failed),
        ("messages", messages),
        ("messages_bad", messages_bad),
        ("sockets", tasks as u64),
        ("remote_flows", remote_flows as u64),
        ("outbox_bytes", outbox_bytes as u64),
        ("reads", reads),
        ("writes", writes),
        ("accepted", accepted),
        ("no_room", refused),
        ("refused_source", refused_source),
        ("refused_handshake", refused_handshake),
        ("held_back", held_back),
        ("crowded", crowded),
        ("handshakes_failed", handshakes_failed),
        ("proxy_headers_refused", headers_refused),
        ("connected", connected),
        ("accept_errors", accept_errors),
        ("forwarded", forwarded),
        ("forward_drops", forward_drops),
        ("events", events.told),
        ("events_lost", events.lost),
    ];
    fields.extend(FAILED.into_iter().zip(failed));
    fields
}

/// [`REASONS`], as they are called beside the other numbers.
const FAILED: [&str; REASONS.len()] = [
    "failed_refused",
    "failed_unreachable",
    "failed_connect_timeout",
    "failed_reset",
    "failed_closed",
    "failed_outbox_full",
    "failed_timeout",
    "failed_local",
    "failed_silent",
    "failed_handshake",
];

/// Memory of the process, in KiB; 0 where `/proc` does not say.
pub(super) fn rss_kib() -> u64 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().trim_end_matches(" kB").parse().ok()
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_field_of_its_name() {
        for (field, reason) in FAILED.into_iter().zip(REASONS) {
            assert_eq!(field, format!("failed_{reason}"));
        }
    }

    #[test]
    fn the_process_has_memory() {
        assert!(rss_kib() > 0);
    }
}
