//! Where TCP flows come from: listeners and connects.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use glommio::net::{TcpListener, TcpStream};
use socket2::{SockRef, TcpKeepalive};

use super::flow::{Flow, State};
use super::pings::Patience;
use super::session::Session;
use super::sources::Seat;
use super::tally::NetStats;
use super::tls::{Contexts, Tls, shake_hands};
use super::{FlowError, Host, NewFlow, front, next_round};
use crate::key::FlowId;
use crate::options::Limits;
use crate::target::{Target, Transport};
use crate::time::Instant;

/// Pause after an `accept` that failed for want of descriptors or memory. Connections wait in the
/// backlog meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections taken before the flows have their turn.
const ACCEPT_BURST: u32 = 64;
/// A failing `accept` is logged once in this long.
const ACCEPT_LOG_EVERY: Duration = Duration::from_secs(10);

/// Binds a listener of this shard; the kernel spreads connections over all that share the address.
///
/// # Errors
/// The address is in use, not ours, or needs a privilege.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    Ok(listener)
}

/// Accepts for ever. A second task, or a cancelled accept, would lose connections.
pub(crate) async fn accept_all<H: Host>(host: Rc<H>, listener: TcpListener, listen: Target) {
    let address = listen.address;
    let mut burst = 0;
    let mut logged: Option<Instant> = None;
    loop {
        match listener.accept().await {
            Ok(stream) => {
                if let Err(error) = accept(&host, stream, listen.transport) {
                    tracing::debug!(%address, %error, "connection was gone before it was accepted");
                }
                burst += 1;
                if burst % ACCEPT_BURST == 0 {
                    next_round().await;
                }
            }
            Err(error) => {
                let error = io::Error::from(error);
                match error.kind() {
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {
                        next_round().await;
                        continue;
                    }
                    _ => {}
                }
                host.net().tally.count(|stats| stats.accept_errors += 1);
                let now = host.now();
                if logged.is_none_or(|logged| now.since(logged) >= ACCEPT_LOG_EVERY) {
                    logged = Some(now);
                    tracing::error!(
                        %address, %error, flows = host.net().flows(),
                        "cannot accept; new connections wait, see tuning/README.md"
                    );
                }
                glommio::timer::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Takes a connection: of a load balancer its header comes first.
fn accept<H: Host>(host: &Rc<H>, stream: TcpStream, transport: Transport) -> io::Result<()> {
    let socket = SockRef::from(&stream);
    socket.set_cloexec(true)?;
    tune(&socket, &host.net().limits.borrow())?;
    // What is left of it in TIME_WAIT must not keep the next server from its address: see `probe`.
    socket.set_reuse_address(true)?;
    let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
    let ends = NewFlow { peer, local, transport };
    match host.net().is_front(peer.ip()) {
        true => front::accept(host, stream, ends),
        false => enter(host, stream, ends),
    }
}

/// Makes a connection whose peer is known a flow, after its handshake if it is to have one, or closes it when
/// there is no room.
pub(super) fn enter<H: Host>(host: &Rc<H>, stream: TcpStream, ends: NewFlow) -> io::Result<()> {
    let net = host.net();
    let sources_max = net.limits.borrow().flows_per_source_max;
    let Some(seat) = net.sources.seat(ends.peer.ip(), sources_max) else {
        return refuse(host, &stream, |stats| &mut stats.refused_source);
    };
    let guest = Guest { stream, ends, seat };
    match ends.transport {
        Transport::Tcp | Transport::Udp => begin(host, guest, None),
        Transport::Tls => {
            let connection = net.tls.borrow().as_ref().and_then(Contexts::accept);
            let Some(connection) = connection.filter(|_| net.begin_handshake()) else {
                return refuse(host, &guest.stream, |stats| &mut stats.refused_handshake);
            };
            let patience = net.limits.borrow().tls_handshake_timeout;
            let host = Rc::clone(host);
            glommio::spawn_local(greet(host, guest, connection, patience)).detach();
            Ok(())
        }
    }
}

/// A connection that a peer opened, and that is no flow yet.
struct Guest {
    stream: TcpStream,
    ends: NewFlow,
    seat: Seat,
}

/// Closes a connection that is too much, and counts it.
pub(super) fn refuse<H: Host>(
    host: &Rc<H>,
    stream: &TcpStream,
    counter: impl FnOnce(&mut NetStats) -> &mut u64,
) -> io::Result<()> {
    host.net().tally.limited(host.now(), counter);
    host.rearm();
    SockRef::from(stream).shutdown(std::net::Shutdown::Both)
}

/// The handshake of a peer that connected to us.
async fn greet<H: Host>(
    host: Rc<H>,
    mut guest: Guest,
    connection: rustls::Connection,
    patience: Duration,
) {
    let peer = guest.ends.peer;
    let greeted = shake_hands(&mut guest.stream, connection, patience).await;
    let net = host.net();
    net.end_handshake();
    match greeted {
        Ok(tls) => {
            if let Err(error) = begin(&host, guest, Some(tls)) {
                tracing::debug!(%peer, %error, "connection was gone after its handshake");
            }
        }
        Err(error) => {
            net.tally.handshake_failed(host.now(), peer, &error);
            let _ = guest.stream.shutdown(std::net::Shutdown::Both).await;
        }
    }
}

/// Makes a connection that a peer opened a flow.
fn begin<H: Host>(host: &Rc<H>, guest: Guest, tls: Option<Box<Tls>>) -> io::Result<()> {
    let Guest { stream, ends, seat } = guest;
    let net = host.net();
    let now = host.now();
    if !net.has_room() {
        host.make_room();
    }
    let Some(id) = net.has_room().then(|| host.accept(ends)).flatten() else {
        return refuse(host, &stream, |stats| &mut stats.refused);
    };
    net.tally.count(|stats| stats.accepted += 1);
    let flow = Rc::new(Flow::new(id, ends, State::Open));
    net.insert(&flow);
    host.attach(&flow);
    let devices = tls.as_ref().map(|tls| net.devices_of(tls)).unwrap_or_default();
    if !devices.is_empty() {
        flow.devices.replace(devices);
        host.certified(&flow);
    }
    let first_message = now + net.limits.borrow().first_message_timeout;
    let session = Session::new(net, flow, stream, tls).of_guest(seat, first_message);
    glommio::spawn_local(session.run(Rc::clone(host))).detach();
    Ok(())
}

/// What every connection has: no waiting for more to send, and an end when its peer vanishes.
///
/// The kernel gives a connection up when bytes stay unacknowledged, or the peer's window stays shut, for
/// TCP_USER_TIMEOUT; that also bounds the wait for the answer to a keep-alive.
fn tune(socket: &SockRef<'_>, limits: &Limits) -> io::Result<()> {
    socket.set_nodelay(true)?;
    set_user_timeout(socket, limits, Patience::Whole)?;
    set_keepalive(socket, limits, Patience::Whole)
}

/// Changes what the kernel does about a peer of which nothing is heard.
///
/// # Errors
/// The socket is gone.
pub(super) fn patient(
    socket: &SockRef<'_>,
    limits: &Limits,
    before: Patience,
    patience: Patience,
) -> io::Result<()> {
    set_user_timeout(socket, limits, patience)?;
    if (before == Patience::Asking) != (patience == Patience::Asking) {
        set_keepalive(socket, limits, patience)?;
    }
    Ok(())
}

/// What passes before the kernel counts: a loss probe (RFC 8985 §7), then the first retransmission, from which
/// on it counts; each 200 ms later at least (TCP_RTO_MIN).
const UNCOUNTED: Duration = Duration::from_millis(400);
/// How often the kernel asks in [`Patience::Asking`]: its least.
pub(super) const ASK_EVERY: Duration = Duration::from_secs(1);

fn set_user_timeout(socket: &SockRef<'_>, limits: &Limits, patience: Patience) -> io::Result<()> {
    if limits.tcp_user_timeout.is_zero() {
        return Ok(());
    }
    socket.set_tcp_user_timeout(Some(user_timeout(limits, patience)))
}

/// What TCP_USER_TIMEOUT is set to. Where the peer may have vanished `ping_interval` before the first byte that it
/// does not acknowledge, that is taken off, but at most half.
///
/// For a message nothing is taken off: with 3 s it is sent again 3.0 s after the first time, and given up at 3.2 s.
/// With what the kernel adds taken off, the last time would be 1.4 s after the first.
fn user_timeout(limits: &Limits, patience: Patience) -> Duration {
    let whole = limits.tcp_user_timeout;
    match patience {
        Patience::Whole | Patience::Asking => whole,
        Patience::Short => {
            let left = whole.saturating_sub(limits.ping_interval).max(whole / 2);
            left.saturating_sub(UNCOUNTED).max(whole / 4).max(Duration::from_millis(1))
        }
    }
}

fn set_keepalive(socket: &SockRef<'_>, limits: &Limits, patience: Patience) -> io::Result<()> {
    let (after, every) = match patience {
        Patience::Asking => (ASK_EVERY, ASK_EVERY),
        Patience::Whole | Patience::Short => {
            (limits.tcp_keepalive, Duration::from_secs(limits.tcp_user_timeout.as_secs().max(1)))
        }
    };
    if after.is_zero() {
        return socket.set_keepalive(false);
    }
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(after).with_interval(every))
}

/// Opens the connection that the endpoint calls `id`, and serves it.
pub(crate) fn connect<H: Host>(host: &Rc<H>, id: FlowId, target: Target, timeout: Duration) {
    let Target { transport, address: peer } = target;
    // Known when the connection is open; until then nothing is read, so nobody asks.
    let ends = NewFlow { peer, local: SocketAddr::new(peer.ip(), 0), transport };
    let flow = Rc::new(Flow::new(id, ends, State::Connecting));
    host.net().insert(&flow);
    host.attach(&flow);
    glommio::spawn_local(open(Rc::clone(host), flow, timeout)).detach();
}

async fn open<H: Host>(host: Rc<H>, flow: Rc<Flow>, timeout: Duration) {
    let limits = host.net().limits.borrow().clone();
    let opened = {
        let timeout = timeout.max(Duration::from_millis(1));
        let mut connecting = pin!(connected(&*host, flow.ends.get(), timeout, &limits));
        poll_fn(|cx| {
            flow.running(cx);
            match flow.state.get() {
                State::Connecting => {
                    connecting.as_mut().poll(cx).map(|opened| opened.map_err(Some))
                }
                State::Failed(error) => Poll::Ready(Err(Some(error))),
                State::Open | State::Closing | State::Ending | State::Abandoned => {
                    Poll::Ready(Err(None))
                }
            }
        })
        .await
    };
    match opened {
        Ok((stream, local, tls)) => {
            let net = host.net();
            flow.ends.set(NewFlow { local, ..flow.ends.get() });
            flow.state.set(State::Open);
            net.tally.count(|stats| stats.connected += 1);
            host.opened(&flow);
            // Spawned, not awaited: the task of an open flow need not be as large as a connect.
            let session = Session::new(net, flow, stream, tls);
            glommio::spawn_local(session.run(Rc::clone(&host))).detach();
        }
        Err(error) => {
            host.net().remove(&flow);
            if let Some(error) = error {
                host.failed(&flow, error);
            }
        }
    }
}

async fn connected<H: Host>(
    host: &H,
    ends: NewFlow,
    timeout: Duration,
    limits: &Limits,
) -> Result<(TcpStream, SocketAddr, Option<Box<Tls>>), FlowError> {
    let began = host.now();
    let target = ends.peer;
    let mut stream = TcpStream::connect_timeout(target, timeout)
        .await
        .map_err(|error| error_of(&io::Error::from(error)))?;
    tune(&SockRef::from(&stream), limits).map_err(|_| FlowError::Reset)?;
    let local = stream.local_addr().map_err(|_| FlowError::Reset)?;
    if local == target {
        // Nobody listens there: the kernel picked the target's own port for our end, and the
        // connection leads back to us (simultaneous open).
        return Err(FlowError::Refused);
    }
    if ends.transport != Transport::Tls {
        return Ok((stream, local, None));
    }
    // Connecting and shaking hands have one patience.
    let patience = timeout.saturating_sub(host.now().since(began));
    let connection = host.net().tls_to(target).ok_or(FlowError::Handshake)?;
    match shake_hands(&mut stream, connection, patience).await {
        Ok(tls) => Ok((stream, local, Some(tls))),
        Err(error) => {
            host.net().tally.handshake_failed(host.now(), target, &error);
            let _ = stream.shutdown(std::net::Shutdown::Both).await;
            Err(FlowError::Handshake)
        }
    }
}

/// Why a connection did not open.
fn error_of(error: &io::Error) -> FlowError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => FlowError::Refused,
        io::ErrorKind::TimedOut => FlowError::ConnectTimeout,
        io::ErrorKind::ConnectionReset => FlowError::Reset,
        _ => FlowError::Unreachable,
    }
}

/// What a failing bind says, with its address and what to do about it.
pub(crate) fn bind_error(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("cannot listen on {address}: the address is in use by another socket")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("cannot listen on {address}: it is no address of this machine")
        }
        io::ErrorKind::PermissionDenied => format!(
            "cannot listen on {address}: ports below net.ipv4.ip_unprivileged_port_start need the \
             capability CAP_NET_BIND_SERVICE, see tuning/README.md"
        ),
        _ => format!("cannot listen on {address}: {error}"),
    }
}

/// One bind without SO_REUSEPORT, given up at once: the shards share their address, so a second
/// server on it would go unnoticed and take half of the connections. Port 0 becomes a free port.
///
/// It binds with SO_REUSEADDR, which goes past connections that have it too and past no listener.
///
/// # Errors
/// As [`listen`], and when any other socket listens there.
pub(crate) fn probe(address: SocketAddr) -> io::Result<SocketAddr> {
    std::net::TcpListener::bind(address)?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_between_pings_and_what_the_kernel_adds_are_taken_off_the_timeout_of_pings() {
        let limits = |timeout, interval| Limits {
            tcp_user_timeout: Duration::from_millis(timeout),
            ping_interval: Duration::from_millis(interval),
            ..Limits::default()
        };
        let set = |limits: &Limits, patience| user_timeout(limits, patience).as_millis();
        let usual = limits(3000, 1000);
        assert_eq!(set(&usual, Patience::Whole), 3000);
        assert_eq!(set(&usual, Patience::Asking), 3000);
        assert_eq!(set(&usual, Patience::Short), 1600);
        assert_eq!(set(&limits(3000, 5000), Patience::Short), 1100, "half of it at least");
        assert_eq!(set(&limits(400, 1000), Patience::Short), 100);
        assert_eq!(set(&limits(1, 1000), Patience::Short), 1, "0 would be for ever");
    }
}
