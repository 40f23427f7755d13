//! The families of metrics, written in the OpenMetrics text format.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::super::events::Counts;
use super::super::names::Lookups;
use super::super::stats::rss_kib;
use crate::cti::{Cause, Outcome};
use crate::net::REASONS;
use crate::shard::Snapshot;
use crate::sip::counters::{BUCKETS, End, Histogram, OVERLOADS, REFUSALS, Transactions};
use crate::sip::message::Method;

/// What one scrape reads.
#[derive(Debug)]
pub(super) struct Families {
    pub(super) snapshots: Vec<Snapshot>,
    /// Commands that wait for each shard.
    pub(super) commands: Vec<usize>,
    /// Loads of the configuration that were taken, and refused.
    pub(super) reloads: (u64, u64),
    pub(super) lookups: Arc<Lookups>,
    pub(super) events: Option<Arc<Counts>>,
}

type Labels = Vec<(&'static str, String)>;
type Samples = Vec<(Labels, u64)>;

impl Families {
    /// All of them as text.
    pub(super) fn encode(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    /// One sample for each shard.
    fn each(&self, value: impl Fn(&Snapshot) -> u64) -> Samples {
        self.snapshots.iter().map(|snapshot| (of_shard(snapshot), value(snapshot))).collect()
    }

    /// Several samples for each shard, which differ in one label.
    fn by<const N: usize>(
        &self,
        label: &'static str,
        values: impl Fn(&Snapshot) -> [(&'static str, u64); N],
    ) -> Samples {
        let of = |snapshot: &Snapshot| {
            let shard = of_shard(snapshot);
            values(snapshot).map(|(name, value)| (with(&shard, label, name), value))
        };
        self.snapshots.iter().flat_map(of).collect()
    }

    fn transactions(&self, of: impl Fn(&Snapshot) -> &Transactions) -> Samples {
        let mut samples = Samples::new();
        for snapshot in &self.snapshots {
            let shard = of_shard(snapshot);
            for (method, end, count) in of(snapshot).iter() {
                let method = if method == Method::Other { "other" } else { method.as_str() };
                let status = match end {
                    End::Status(status) => status.to_string(),
                    End::TimedOut => "timeout".to_owned(),
                    End::Failed => "transport".to_owned(),
                };
                samples.push((with(&with(&shard, "method", method), "status", status), count));
            }
        }
        samples
    }

    fn gauges(&self) -> [(&'static str, &'static str, Samples); 11] {
        [
            ("flows", "Open or opening connections", self.each(|s| s.endpoint.flows as u64)),
            ("calls", "Calls of two legs", self.each(|s| s.endpoint.calls as u64)),
            (
                "recoveries_waiting",
                "Legs that wait for their next attempt",
                self.each(|s| s.endpoint.waiting as u64),
            ),
            (
                "transactions",
                "Transactions in memory",
                self.by("role", |s| {
                    let (clients, servers) = (s.endpoint.clients, s.endpoint.servers);
                    [("client", clients as u64), ("server", servers as u64)]
                }),
            ),
            ("timers", "Scheduled timers", self.each(|s| s.endpoint.timers as u64)),
            ("outbox_bytes", "Bytes queued for peers", self.each(|s| s.net.outbox_bytes as u64)),
            (
                "commands_waiting",
                "Commands of the control thread that a shard has not read",
                self.snapshots
                    .iter()
                    .filter_map(|snapshot| {
                        let waiting = *self.commands.get(usize::from(snapshot.shard.0))?;
                        Some((of_shard(snapshot), waiting as u64))
                    })
                    .collect(),
            ),
            (
                "events_waiting",
                "Events that were queued when the events thread last took some",
                self.event_count(|counts| &counts.waiting),
            ),
            (
                "events_subscribers",
                "Readers of the events socket",
                self.event_count(|counts| &counts.subscribers),
            ),
            (
                "dns_names_unknown",
                "Names of devices that have no address yet",
                vec![(Labels::new(), self.lookups.unknown.load(Ordering::Relaxed))],
            ),
            (
                "resident_memory_bytes",
                "Memory of the process",
                vec![(Labels::new(), rss_kib() * 1024)],
            ),
        ]
    }

    fn counters(&self) -> Vec<(&'static str, &'static str, Samples)> {
        let mut all = Vec::from(self.call_counters());
        all.extend(self.input_counters());
        all.extend(self.event_counters());
        let (applied, refused) = self.reloads;
        let result = |result: &str| vec![("result", result.to_owned())];
        all.push((
            "config_reloads",
            "Loads of the configuration while the server runs",
            vec![(result("applied"), applied), (result("refused"), refused)],
        ));
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Lookups { answered, failed, cut, unknown: _ } = &*self.lookups;
        all.push((
            "dns_lookups",
            "Look-ups of the names of devices",
            vec![(result("answered"), read(answered)), (result("failed"), read(failed))],
        ));
        all.push((
            "dns_answers_cut",
            "Look-ups of which something was left out",
            vec![(Labels::new(), read(cut))],
        ));
        all
    }

    fn call_counters(&self) -> [(&'static str, &'static str, Samples); 7] {
        [
            (
                "calls_established",
                "Calls that were answered",
                self.each(|s| s.endpoint.calls_established),
            ),
            (
                "calls_lost",
                "Calls ended because a recovery was given up or is switched off",
                self.each(|s| s.endpoint.calls_lost),
            ),
            (
                "recoveries_started",
                "Re-INVITEs that had to wait, by the cause of the first wait",
                self.by("cause", |s| {
                    Cause::ALL.map(|it| (it.name(), s.counters.recoveries[it as usize].started))
                }),
            ),
            (
                "recoveries_ended",
                "Recoveries that ended, by the cause of the first wait and by outcome",
                self.recoveries_ended(),
            ),
            ("recovery_attempts", "Re-INVITEs sent again", self.each(|s| s.counters.attempts)),
            (
                "requests_received",
                "Requests of peers, by the final response they got",
                self.transactions(|s| &s.counters.received),
            ),
            (
                "requests_sent",
                "Requests to peers, by the final response or how they ended without",
                self.transactions(|s| &s.counters.sent),
            ),
        ]
    }

    fn recoveries_ended(&self) -> Samples {
        let mut samples = Samples::new();
        for snapshot in &self.snapshots {
            let shard = of_shard(snapshot);
            for cause in Cause::ALL {
                let labels = with(&shard, "cause", cause.name());
                let of = snapshot.counters.recoveries[cause as usize];
                let ended = Outcome::ALL.map(|it| (it.name(), of.ended[it as usize]));
                for (outcome, count) in [("recovered", of.succeeded)].into_iter().chain(ended) {
                    samples.push((with(&labels, "outcome", outcome), count));
                }
            }
        }
        samples
    }

    fn input_counters(&self) -> [(&'static str, &'static str, Samples); 11] {
        [
            ("messages", "Messages handled", self.each(|s| s.endpoint.messages)),
            (
                "input_refused",
                "Messages refused or dropped because they are malformed",
                self.by("reason", |s| {
                    std::array::from_fn::<_, { REFUSALS.len() }, _>(|reason| {
                        (REFUSALS[reason], s.counters.refused[reason])
                    })
                }),
            ),
            (
                "calls_refused",
                "INVITEs of new calls refused because there is too much to do, by what said so",
                self.by("reason", |s| {
                    std::array::from_fn::<_, { OVERLOADS.len() }, _>(|reason| {
                        (OVERLOADS[reason], s.counters.overload[reason])
                    })
                }),
            ),
            (
                "flows_opened",
                "Connections that were opened, by whom",
                self.by("by", |s| [("peer", s.net.accepted), ("server", s.net.connected)]),
            ),
            (
                "flows_refused",
                "Connections closed at once because there are too many, of which kind",
                self.by("reason", |s| {
                    [
                        ("full", s.net.refused),
                        ("source", s.net.refused_source),
                        ("handshakes", s.net.refused_handshake),
                    ]
                }),
            ),
            (
                "flows_crowded",
                "Idle connections closed because the table of flows was full",
                self.each(|s| s.net.crowded),
            ),
            (
                "flows_held_back",
                "Times that a connection was not read because it sent too many messages a second",
                self.each(|s| s.net.held_back),
            ),
            (
                "flows_failed",
                "Connections that failed or were closed, by reason",
                self.by("reason", |s| {
                    std::array::from_fn::<_, { REASONS.len() }, _>(|reason| {
                        (REASONS[reason], s.net.failed[reason])
                    })
                }),
            ),
            (
                "tls_handshakes_failed",
                "TLS handshakes that failed, of peers and of ours",
                self.each(|s| s.net.handshakes_failed),
            ),
            (
                "proxy_headers_refused",
                "Connections of load balancers whose PROXY header was bad, cut short or late",
                self.each(|s| s.net.headers_refused),
            ),
            (
                "messages_forwarded",
                "Messages handed to the shard that is their home",
                self.by("result", |s| {
                    [("delivered", s.net.forwarded), ("dropped", s.net.forward_drops)]
                }),
            ),
        ]
    }

    fn event_counters(&self) -> [(&'static str, &'static str, Samples); 4] {
        let to = |to: &str| vec![("to", to.to_owned())];
        let lost = self.events.iter().flat_map(|counts| {
            [
                (to("file"), read(&counts.lost_to_file)),
                (to("socket"), read(&counts.lost_to_subscribers)),
            ]
        });
        [
            ("events", "Events handed to the events thread", self.each(|s| s.events.told)),
            (
                "events_lost",
                "Events that found the queue of the events thread full",
                self.each(|s| s.events.lost),
            ),
            ("events_unwritten", "Events that a reader did not get", lost.collect()),
            (
                "cti_requests",
                "Requests of applications, by whether they could be passed on",
                self.events
                    .iter()
                    .flat_map(|counts| {
                        let refused = read(&counts.requests_refused);
                        let passed = read(&counts.requests).saturating_sub(refused);
                        let label = |text: &str| vec![("result", text.to_owned())];
                        [(label("passed"), passed), (label("refused"), refused)]
                    })
                    .collect(),
            ),
        ]
    }

    fn event_count(&self, of: impl Fn(&Counts) -> &AtomicU64) -> Samples {
        self.events.iter().map(|counts| (Labels::new(), read(of(counts)))).collect()
    }

    fn encode_excess(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_histogram(
            encoder,
            "holdfast_recovery_excess_seconds",
            "From the first failure of a re-INVITE to its answer, less the waits",
            |snapshot| &snapshot.counters.excess,
        )
    }

    fn encode_queueing(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_histogram(
            encoder,
            "holdfast_queueing_delay_seconds",
            "How long what was read over connections may have waited in the kernel, at most, for each read",
            |snapshot| &snapshot.net.queueing,
        )
    }

    fn encode_histogram(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        of: impl Fn(&Snapshot) -> &Histogram,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for snapshot in &self.snapshots {
            let durations = of(snapshot);
            let bounds = BUCKETS.map(|micros| micros as f64 / 1e6);
            let bounds = bounds.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(durations.counts).collect();
            let labels = of_shard(snapshot);
            let mut family = metric.encode_family(&labels)?;
            let count = durations.counts.iter().sum();
            family.encode_histogram::<NoLabelSet>(
                durations.sum as f64 / 1e6,
                count,
                &buckets,
                None,
            )?;
        }
        Ok(())
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, samples) in self.gauges() {
            let name = format!("holdfast_{name}");
            let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            for (labels, value) in samples {
                metric.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        for (name, help, samples) in self.counters() {
            let name = format!("holdfast_{name}");
            let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (labels, value) in samples {
                metric
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        self.encode_excess(&mut encoder)?;
        self.encode_queueing(&mut encoder)
    }
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn of_shard(snapshot: &Snapshot) -> Labels {
    vec![("shard", snapshot.shard.0.to_string())]
}

fn with(labels: &Labels, name: &'static str, value: impl Into<String>) -> Labels {
    let mut labels = labels.clone();
    labels.push((name, value.into()));
    labels
}
