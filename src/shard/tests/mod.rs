//! Shards on real sockets, with a protocol that does what the request's method says.

mod measure;
mod world;

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant as SystemInstant};

use futures_lite::future::block_on;

use super::*;
use crate::options::Limits;
use crate::target::Target;
use world::{Client, Event, World, request};

#[test]
fn messages_read_together_are_answered_with_one_write() {
    let world = World::new(1);
    let mut client = world.connect();
    let sixteen = request("ECHO", "x", &"b".repeat(600)).repeat(16);
    client.send(&sixteen);
    client.expect(&sixteen);
    let net = world.snapshots()[0].net;
    assert_eq!(net.writes, net.reads);
    assert!(net.reads <= 2, "{net:?}");
}

#[test]
fn ping_is_answered_with_crlf() {
    let world = World::new(1);
    let mut client = world.connect();
    client.send(b"\r\n\r\n");
    client.expect(b"\r\n");
    client.echo("x", "");
}

#[test]
fn slow_reader_loses_its_own_flow_only_and_memory_stays_bounded() {
    let outbox_bytes_max = 1 << 20;
    let world = World::with(1, Limits { outbox_bytes_max, ..Limits::default() });
    let mut slow = world.connect();
    let mut other = world.connect();
    let message = request("ECHO", "x", &"b".repeat(40_000));
    slow.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    while slow.stream.write_all(&message).is_ok() {
        let net = world.snapshots()[0].net;
        assert!(net.outbox_bytes <= outbox_bytes_max, "{net:?}");
        other.echo("x", "still here");
    }
    assert_eq!(world.event_of_a_flow(), Event::Failed(ShardId(0), FlowError::OutboxFull));
    other.echo("x", "and after it");
    world.nothing_happens();
    assert_eq!(world.snapshots()[0].net.outbox_bytes, 0);
}

#[test]
fn reset_is_seen_once() {
    let world = World::new(1);
    let mut client = world.connect();
    client.echo("x", "");
    client.reset();
    assert_eq!(world.event_of_a_flow(), Event::Failed(ShardId(0), FlowError::Reset));
    world.nothing_happens();
}

#[test]
fn end_of_the_peers_stream_ends_the_flow_after_its_last_message_was_answered() {
    let world = World::new(1);
    let mut client = world.connect();
    let message = request("ECHO", "x", "the last");
    client.send(&message);
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    client.expect(&message);
    client.expect_end();
    assert_eq!(world.event_of_a_flow(), Event::Failed(ShardId(0), FlowError::Closed));
    world.nothing_happens();
}

#[test]
fn close_writes_what_is_queued_and_hands_in_nothing_more() {
    let world = World::new(1);
    let mut client = world.connect();
    let echo = request("ECHO", "x", &"b".repeat(40_000)).repeat(50);
    let last = request("LAST", "x", "goodbye");
    let mut all = [echo, last].concat();
    let mut writer = client.stream.try_clone().unwrap();
    let sent = all.clone();
    let sending = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        // Of these nobody hears, and they do not reset the connection either.
        let _ = writer.write_all(&request("COUNT", "x", "").repeat(100));
    });
    client.expect(&all);
    client.expect_end();
    sending.join().unwrap();
    world.event();
    world.nothing_happens();
    all.clear();
}

#[test]
fn stream_that_cannot_be_framed_is_closed() {
    let world = World::new(1);
    let mut client = world.connect();
    client.send(b"OPTIONS sip:x SIP/2.0\r\nContent-Length: x\r\n\r\n");
    client.expect_end();
}

#[test]
fn connect_opens_and_what_was_queued_before_is_written() {
    let world = World::new(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = world.connect();
    client.send(&request("CONNECT", "x", &listener.local_addr().unwrap().to_string()));
    let (accepted, _) = listener.accept().unwrap();
    Client::new(accepted).expect(&request("HELLO", "x", ""));
    client.expect(&request("OPENED", "x", ""));
}

#[test]
fn refused_connect_is_reported_once() {
    let world = World::new(1);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut client = world.connect();
    client.send(&request("CONNECT", "x", &address.to_string()));
    client.expect(&request("FAILED", "x", "Refused"));
    assert_eq!(world.event_of_a_flow(), Event::Failed(ShardId(0), FlowError::Refused));
    world.nothing_happens();
}

#[test]
fn connect_that_nobody_answers_times_out() {
    let world = World::new(1);
    // A backlog of none, filled: the kernel drops further SYNs.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let short = Duration::from_millis(100);
    let full: Vec<_> = (0..3).map(|_| TcpStream::connect_timeout(&address, short)).collect();
    assert!(full.last().unwrap().is_err(), "the backlog is full");
    let mut client = world.connect();
    let began = SystemInstant::now();
    client.send(&request("CONNECT", "x", &address.to_string()));
    client.expect(&request("FAILED", "x", "ConnectTimeout"));
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[test]
fn thousands_of_silent_flows_disturb_nobody_and_end_at_their_time() {
    let first_message_timeout = Duration::from_millis(1500);
    let limits = Limits { first_message_timeout, flows_per_source_max: 3000, ..Limits::default() };
    let world = World::with(1, limits);
    let mut other = world.connect();
    other.echo("x", "");
    let silent: Vec<_> = (0..2000).map(|_| world.connect()).collect();
    let mut slowest = Duration::ZERO;
    for _ in 0..100 {
        let began = SystemInstant::now();
        other.echo("x", "hello");
        slowest = slowest.max(began.elapsed());
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    for _ in 0..2000 {
        let event = world.event_of_a_flow();
        assert_eq!(event, Event::Failed(ShardId(0), FlowError::Timeout));
    }
    other.echo("x", "still here");
    assert_eq!(world.snapshots()[0].net.tasks, 1);
    drop(silent);
    world.nothing_happens();
}

#[test]
fn message_sent_byte_by_byte_ends_at_its_time() {
    let message_timeout = Duration::from_millis(400);
    let world = World::with(1, Limits { message_timeout, ..Limits::default() });
    let mut client = world.connect();
    let began = SystemInstant::now();
    for byte in request("ECHO", "x", &"b".repeat(100)) {
        if client.stream.write_all(&[byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let took = began.elapsed();
    assert_eq!(world.event_of_a_flow(), Event::Failed(ShardId(0), FlowError::Timeout));
    assert!(took >= message_timeout && took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn flow_that_idles_between_messages_stays() {
    let message_timeout = Duration::from_millis(200);
    let first_message_timeout = Duration::from_millis(300);
    let limits = Limits { message_timeout, first_message_timeout, ..Limits::default() };
    let world = World::with(1, limits);
    let mut client = world.connect();
    for _ in 0..3 {
        let message = request("ECHO", "x", "in two parts");
        client.send(&message[..20]);
        std::thread::sleep(Duration::from_millis(50));
        client.send(&message[20..]);
        client.expect(&message);
        std::thread::sleep(Duration::from_millis(600));
    }
    world.event();
    world.nothing_happens();
}

#[test]
fn flow_above_the_limit_takes_the_place_of_an_idle_one() {
    let world = World::with(1, Limits { flows_max: 2, ..Limits::default() });
    let mut first = world.connect();
    let mut second = world.connect();
    first.echo("x", "");
    second.echo("x", "");
    let mut third = world.connect();
    third.echo("x", "");
    first.expect_end();
    second.echo("x", "");
    let net = world.snapshots()[0].net;
    assert_eq!((net.crowded, net.refused, net.tasks), (1, 0, 2));
}

#[test]
fn timer_fires_in_time_and_an_earlier_one_is_not_late() {
    let world = World::new(1);
    let mut client = world.connect();
    let (late, early) = (request("TIMER", "x", "300"), request("TIMER", "x", "50"));
    let began = SystemInstant::now();
    client.send(&late);
    std::thread::sleep(Duration::from_millis(20));
    client.send(&early);
    client.expect(&early);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(70) && took < Duration::from_millis(250), "{took:?}");
    client.expect(&late);
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[test]
fn message_goes_to_its_home_and_the_answer_comes_back() {
    for shards in [1, 2, 4] {
        let world = World::new(shards);
        let mut client = world.connect();
        for round in 0..3 {
            for home in 0..shards {
                client.echo(&format!("home={home}"), &format!("round {round}"));
            }
        }
        // A forged number is nobody's home.
        client.echo("home=77", "");
        client.echo("home=65535", "");
        for home in 0..shards {
            client.send(&request("COUNT", &format!("home={home}"), ""));
            let home = ShardId(home as u16);
            assert_eq!(world.event_of_a_flow(), Event::Message(home));
        }
    }
}

#[test]
fn death_of_a_flow_is_told_once_to_each_shard_that_knew_it() {
    let world = World::new(4);
    let mut client = world.connect();
    let mut untouched = world.connect();
    for home in 0..4 {
        client.echo(&format!("home={home}"), "");
        untouched.echo(&format!("home={home}"), "");
    }
    client.reset();
    let mut told: Vec<_> = (0..4).map(|_| world.event_of_a_flow()).collect();
    told.sort_by_key(|event| format!("{event:?}"));
    let expected: Vec<_> =
        (0..4).map(|shard| Event::Failed(ShardId(shard), FlowError::Reset)).collect();
    assert_eq!(told, expected);
    world.nothing_happens();
    let flows: usize = world.snapshots().iter().map(|snapshot| snapshot.endpoint.flows).sum();
    assert_eq!(flows, 4, "the other client's flow and what stands for it");
    untouched.echo("home=2", "");
    let remote: usize = world.snapshots().iter().map(|snapshot| snapshot.remote_flows).sum();
    assert_eq!(remote, 3);
}

#[test]
fn home_closes_a_flow_of_another_shard() {
    let world = World::new(2);
    for home in 0..2 {
        let mut client = world.connect();
        client.echo("home=0", "");
        client.echo("home=1", "");
        let last = request("LAST", &format!("home={home}"), "");
        client.send(&last);
        client.expect(&last);
        client.expect_end();
        let other = ShardId(1 - home);
        assert_eq!(world.event_of_a_flow(), Event::Failed(other, FlowError::Local));
        world.nothing_happens();
    }
}

#[test]
fn a_flow_that_leads_to_a_target_is_known_to_every_shard_wherever_that_was_found() {
    for home in 0..4 {
        let world = World::new(4);
        let mut device = world.connect();
        let Event::Accepted(origin) = world.event() else { panic!("accepted first") };
        device.send(&request("ALIAS", &format!("home={home}"), ""));
        let mut told: Vec<_> = std::iter::repeat_with(|| world.event())
            .filter_map(|event| match event {
                Event::Alias(shard) => Some(shard.0),
                _ => None,
            })
            .take(3)
            .collect();
        told.sort_unstable();
        let others: Vec<_> = (0..4).filter(|shard| *shard != home).collect();
        assert_eq!(told, others, "found by {home} for a flow of {origin:?}");
        for shard in others {
            let hello = request("HELLO", &format!("home={shard}"), "");
            world.connect().send(&hello);
            device.expect(&hello);
        }
    }
}

#[test]
fn what_another_shard_needs_no_more_gives_place_in_a_full_table() {
    let world = World::with(2, Limits { flows_max: 3, ..Limits::default() });
    let mut held = Vec::new();
    while held.len() < 3 {
        let client = world.connect();
        match world.event() {
            Event::Accepted(ShardId(0)) => held.push(client),
            _ => drop((client.reset(), world.event())),
        }
    }
    for client in &mut held {
        client.echo("home=1", "");
    }
    let began = std::time::Instant::now();
    // Whoever comes to the full shard is refused, until the other one has let go of a flow.
    loop {
        assert!(began.elapsed() < Duration::from_secs(10), "kept out");
        let mut client = world.connect();
        let served = client.try_echo("home=1") && world.snapshots()[0].net.crowded > 0;
        client.reset();
        if served {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let kept = held.iter_mut().filter_map(|client| client.try_echo("home=1").then_some(())).count();
    assert_eq!(kept, 2);
}

#[test]
fn a_flow_that_another_shard_has_no_room_for_is_not_kept_for_it() {
    let world = World::with(2, Limits { flows_max: 3, ..Limits::default() });
    let (mut held, mut other) = (Vec::new(), None);
    while held.len() < 3 || other.is_none() {
        let client = world.connect();
        match world.event() {
            Event::Accepted(ShardId(0)) if held.len() < 3 => held.push(client),
            Event::Accepted(ShardId(1)) if other.is_none() => other = Some(client),
            _ => drop((client.reset(), world.event())),
        }
    }
    // All that the first shard has is needed by the second.
    for client in &mut held {
        client.echo("home=1", "");
    }
    let mut other = other.unwrap();
    other.send(&request("COUNT", "home=0", ""));
    let began = std::time::Instant::now();
    loop {
        let [first, _] = &world.snapshots()[..] else { panic!("two shards") };
        if first.net.forward_drops == 1 && first.remote_flows == 0 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{first:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn looks_for_idle_flows_take_a_part_of_the_time_however_many_connections_come() {
    const LOOK: Duration = Duration::from_millis(20);
    let world = World::with_look(1, Limits { flows_max: 2, ..Limits::default() }, LOOK);
    let (began, mut held) = (std::time::Instant::now(), Vec::new());
    let mut looks = 0;
    while looks < 8 {
        let mut client = world.connect();
        client.try_echo("x");
        held.push(client);
        // Each look closes one.
        looks = u32::try_from(world.snapshots()[0].net.crowded).unwrap();
    }
    assert!(began.elapsed() > LOOK * 4 * (looks - 1), "{looks} looks in {:?}", began.elapsed());
}

#[test]
fn shards_that_are_full_of_each_others_messages_do_not_stop() {
    let world = World::new(2);
    let message = |home: usize, number: usize| {
        request("ECHO", &format!("home={home}"), &format!("{number} {}", "b".repeat(30_000)))
    };
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let mut client = world.connect();
            let mut reader = Client::new(client.stream.try_clone().unwrap());
            let writing = std::thread::spawn(move || {
                (0..200).for_each(|number| client.send(&message(n % 2, number)));
            });
            let reading = std::thread::spawn(move || {
                (0..200).for_each(|number| reader.expect(&message(n % 2, number)));
            });
            [writing, reading]
        })
        .collect();
    threads.into_iter().flatten().for_each(|thread| thread.join().unwrap());
    assert!(world.snapshots().iter().map(|snapshot| snapshot.net.forwarded).sum::<u64>() > 0);
}

#[test]
fn drain_is_reported_by_each_shard_and_stop_ends_every_flow() {
    let mut world = World::new(2);
    let mut client = world.connect();
    client.echo("x", "");
    let mut shards = world.shards.take().unwrap();
    let patience = Duration::from_secs(1);
    block_on(async {
        shards.handle().tell(|| Command::Drain { patience }).await;
        for _ in 0..2 {
            assert!(matches!(shards.report().await, Some(Report::Drained(_))));
        }
        shards.handle().tell(|| Command::Stop).await;
        for _ in 0..2 {
            assert!(matches!(shards.report().await, Some(Report::Ended(_, Some(_)))));
        }
    });
    client.expect_end();
    shards.join();
    let refused = TcpStream::connect(world.address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn shard_that_panics_is_reported() {
    let mut world = World::new(2);
    let mut client = world.connect();
    client.send(&request("PANIC", "home=1", ""));
    let mut shards = world.shards.take().unwrap();
    block_on(async {
        assert!(matches!(shards.report().await, Some(Report::Ended(ShardId(1), None))));
        shards.handle().tell(|| Command::Stop).await;
        assert!(matches!(shards.report().await, Some(Report::Ended(ShardId(0), Some(_)))));
    });
    shards.join();
}

#[test]
fn core_that_does_not_exist_is_named() {
    let plan = Plan {
        listen: Vec::new(),
        cores: vec![4095],
        options: Arc::default(),
        tls: None,
        events: None,
    };
    let error = start(plan).err().unwrap().to_string();
    assert!(error.starts_with("there is no core 4095 for a shard: this process may use 0"));
}

#[test]
fn address_in_use_is_named() {
    let world = World::new(1);
    let plan = Plan {
        listen: vec![Target::tcp(world.address)],
        cores: vec![cores::available()[0]],
        options: Arc::default(),
        tls: None,
        events: None,
    };
    let error = start(plan).err().unwrap().to_string();
    let expected =
        format!("cannot listen on {}: the address is in use by another socket", world.address);
    assert_eq!(error, expected);
}
