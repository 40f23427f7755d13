//! A proxy between the server and one of the peers: an endpoint in the proxy role, what the peer sees of it, and
//! a small account of what it owes. What goes wrong between it and the peer the server hears as 503.
//!
//! ```text
//! peer ─── server ═══ proxy ─┼─ peer whose flow dies
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use holdfast::key::FlowId;
use holdfast::options::{Options, Pair, Role};
use holdfast::target::{Target, Transport};

use crate::message::{self, Msg};
use crate::peer::{Peer, T1};
use crate::truth::Truth;

/// Where the proxy is.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 2));

/// Where the proxy listens.
pub(crate) fn addr(transport: Transport) -> SocketAddr {
    SocketAddr::new(PROXY, transport.port())
}

/// What a connection of the proxy's is made of, by the port at its end.
pub(crate) fn transport_at(local: SocketAddr) -> Transport {
    if local == addr(Transport::Tls) { Transport::Tls } else { Transport::Tcp }
}

/// A way that leads through the proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    /// Who is behind it.
    pub(crate) peer: usize,
    /// What the server and the proxy speak with each other.
    pub(crate) hop: Transport,
    /// What the proxy and the peer speak.
    pub(crate) beyond: Transport,
}

impl Path {
    /// The options of a proxy with one server.
    pub(crate) fn options(self, server: SocketAddr) -> Options {
        let members = vec![Target { transport: self.hop, address: server }];
        let mut options = Options::default();
        options.role = Role::Proxy;
        options.sent_by = addr(Transport::Tcp).to_string();
        options.sent_by_tls = addr(Transport::Tls).to_string();
        options.pairs = vec![Pair { name: "one".to_owned(), members, sources: Vec::new() }];
        options
    }

    /// Route of what the peer sends in its dialogs: both sides of the proxy, its own first (RFC 5658 §4).
    pub(crate) fn routes(self) -> Vec<String> {
        let route = |transport: Transport| {
            format!("<sip:{};transport={};lr>", addr(transport), transport.in_uri())
        };
        let mut routes = vec![route(self.beyond), route(self.hop)];
        routes.dedup();
        routes
    }
}

impl Peer {
    /// The proxy that this peer is behind.
    pub(crate) fn path(&self, truth: &Truth) -> Option<Path> {
        truth.path.filter(|path| path.peer == self.index)
    }

    /// Via, Record-Route and Max-Forwards of a request are the server's, or those of the proxy as well.
    pub(crate) fn check_hops(&self, truth: &Truth, msg: &Msg) -> Vec<String> {
        let mut wrong = Vec::new();
        if truth.direct {
            return wrong;
        }
        let path = self.path(truth);
        let via = |transport: Transport, sent_by: &str| {
            format!("SIP/2.0/{} {sent_by};", transport.in_via())
        };
        let mut wanted = Vec::new();
        wanted.extend(path.map(|path| via(path.beyond, &addr(path.beyond).to_string())));
        let last = path.map_or(self.transport, |path| path.hop);
        wanted.push(via(last, &truth.sent_by));
        let vias = msg.list("Via");
        let same = vias.iter().zip(&wanted).all(|(via, wanted)| via.starts_with(wanted));
        if vias.len() != wanted.len() || !same {
            wrong.push(format!("Via {vias:?} instead of {wanted:?}"));
        }
        let begins = msg.method() == "INVITE" && msg.tag_of_to().is_empty();
        let routes = path.filter(|_| begins).map_or(Vec::new(), Path::routes);
        if msg.list("Record-Route") != routes {
            wrong.push(format!("Record-Route {:?}", msg.list("Record-Route")));
        }
        let hops = msg.number("Max-Forwards");
        let own = path.is_some() && msg.number("X-Sim-Id").is_none();
        if msg.count("Max-Forwards") != 1 || own && hops != Some(OWN_HOPS - 1) {
            wrong.push(format!("Max-Forwards {:?}", msg.list("Max-Forwards")));
        }
        wrong
    }

    /// Route of a dialog that this peer began, by the Record-Route of a response: what the proxy put before
    /// the peer's own, the other way round (RFC 3261 §12.1.2).
    pub(crate) fn learn_routes(&mut self, truth: &Truth, leg: usize, response: &Msg) {
        if self.path(truth).is_some() {
            let mut routes = response.list("Record-Route");
            routes.truncate(routes.len().saturating_sub(self.legs[leg].record_route.len()));
            routes.reverse();
            self.legs[leg].route_set = routes;
        }
    }

    /// Record-Route of a response to an INVITE of this peer.
    pub(crate) fn recorded(&self, truth: &Truth, leg: usize) -> Vec<String> {
        let mut routes = self.path(truth).map_or(Vec::new(), Path::routes);
        routes.reverse();
        routes.extend_from_slice(&self.legs[leg].record_route);
        routes
    }

    /// Where a request of a leg goes first.
    pub(crate) fn next_hop(&self, leg: usize) -> SocketAddr {
        let l = &self.legs[leg];
        let uri = l.route_set.first().map_or(&l.remote_target[..], |route| message::uri(route));
        message::host_port(uri).parse().unwrap_or(self.outbound)
    }
}

/// Max-Forwards of a request that the server makes.
const OWN_HOPS: u64 = 70;

/// The account.
#[derive(Debug, Default)]
pub(crate) struct Proxied {
    /// Where it may connect to.
    pub(crate) targets: Vec<Target>,
    opening: BTreeMap<(usize, FlowId), Target>,
    /// Branches of INVITEs that came.
    read: BTreeSet<String>,
    /// Those that went on, and when.
    forwarded: BTreeMap<String, u64>,
    /// Those without a final response.
    owed: BTreeSet<String>,
    /// A 2xx that this turn must pass on.
    passing: Option<String>,
}

impl Proxied {
    /// Connections go to the server and to the peer, one at a time.
    pub(crate) fn on_connect(
        &mut self,
        truth: &mut Truth,
        shard: usize,
        flow: FlowId,
        target: Target,
    ) {
        truth.cover("connection opened by the proxy");
        if !self.targets.contains(&target) {
            truth.failures.push(format!("the proxy connects to {target}: nobody's address"));
        }
        if self.opening.iter().any(|((on, _), other)| *on == shard && *other == target) {
            truth.failures.push(format!("the proxy connects to {target} twice at a time"));
        }
        self.opening.insert((shard, flow), target);
    }

    /// A flow is open, or gone.
    pub(crate) fn on_settled(&mut self, shard: usize, flow: FlowId) {
        self.opening.remove(&(shard, flow));
    }

    /// A message comes.
    pub(crate) fn on_read(&mut self, now: u64, msg: &Msg) {
        if msg.method() != "INVITE" {
            return;
        }
        if !msg.is_response() {
            if self.read.insert(msg.branch()) {
                self.owed.insert(msg.branch());
            }
        } else if matches!(msg.status(), 200..=299) {
            // Whatever was answered before, for as long as it must be known (RFC 6026 §7.2).
            let below = below(msg);
            let sent_at = self.forwarded.get(&below);
            self.passing = sent_at.is_some_and(|at| now < at + 64 * T1).then_some(below);
        }
    }

    /// A message goes out: an INVITE that came, once (`spec` §9: it does not retry), or what becomes of one.
    pub(crate) fn on_send(&mut self, truth: &mut Truth, now: u64, msg: &Msg) {
        if msg.method() != "INVITE" {
            return;
        }
        if msg.is_response() {
            let branch = msg.branch();
            if matches!(msg.status(), 200..=299) && self.passing.as_ref() == Some(&branch) {
                self.passing = None;
            }
            let own = msg.number("X-Sim-Response").is_none();
            if msg.status() == 503 && own && msg.count("Reason") > 0 {
                truth.cover("503 of the proxy");
            }
            let first = msg.status() < 200 || self.owed.remove(&branch);
            match msg.status() {
                300.. if !first => {
                    truth.failures.push(format!("the proxy sends {msg} after a final response"));
                }
                200.. if !first => truth.cover("2xx that the proxy passes on late or again"),
                _ => {}
            }
            return;
        }
        let below = below(msg);
        if !self.read.contains(&below) {
            truth.failures.push(format!("the proxy sends {msg} that nobody sent"));
        }
        if self.forwarded.insert(below, now).is_some() {
            truth.failures.push(format!("the proxy sends {msg} again"));
        }
    }

    /// A turn is over: what it had to do is done.
    pub(crate) fn after_turn(&mut self, truth: &mut Truth) {
        if let Some(branch) = self.passing.take() {
            truth.failures.push(format!("the proxy keeps a 2xx to INVITE {branch}"));
        }
    }

    /// All is over.
    pub(crate) fn check_end(&self, truth: &mut Truth) {
        for branch in &self.owed {
            truth.failures.push(format!("the proxy never answered INVITE {branch}"));
        }
    }
}

/// The branch of who stands before the proxy, in a message with the proxy's Via on top.
fn below(msg: &Msg) -> String {
    let branch = msg.list("Via").get(1).and_then(|via| message::param(via, "branch"));
    branch.unwrap_or_default()
}
