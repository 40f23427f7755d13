//! A configuration that changes while calls are there, and while a thousand legs wait.

use super::*;

const LEGS: u64 = 1000;
const WAITING: &str = "holdfast_recoveries_waiting{";
const ATTEMPTS: &str = "holdfast_recovery_attempts_total{";

/// Calls whose callee went away: every leg waits.
fn legs_that_wait(says: Says<'_>) -> (World, Vec<Call>) {
    let (mut world, listener) = World::new(says);
    let mut callee = None;
    let calls: Vec<_> =
        (0..LEGS as u32).map(|number| world.call(number, &listener, &mut callee)).collect();
    drop(listener);
    drop(callee);
    let text: String = calls.iter().map(|call| call.request("INVITE", 2)).collect();
    world.caller.send(&text);
    world.wait_until(WAITING, LEGS);
    assert_eq!(world.metric(ATTEMPTS), 0);
    (world, calls)
}

/// The delay goes up and down, on one level, while all legs wait.
fn delay_counts_at_once(says: impl Fn(u64) -> Says<'static>) {
    let (world, _calls) = legs_that_wait(says(3000));
    world.configure(says(6000));
    assert_eq!(world.metric(ATTEMPTS), 0, "the wait that runs keeps its timer");
    world.wait_until(ATTEMPTS, LEGS);
    world.wait_until(WAITING, LEGS);
    let second_wait = Instant::now();
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(world.metric(ATTEMPTS), LEGS, "the next decision reads the new delay");
    world.configure(says(500));
    assert_eq!(world.metric(ATTEMPTS), LEGS, "the wait that runs keeps its timer");
    world.wait_until(ATTEMPTS, 2 * LEGS);
    assert!(second_wait.elapsed() > Duration::from_millis(5000));
    let third_wait = Instant::now();
    world.wait_until(ATTEMPTS, 4 * LEGS);
    assert!(third_wait.elapsed() < Duration::from_millis(7000), "two waits of 500 ms");
    assert_eq!(world.metric("holdfast_calls_lost_total{"), 0);
    assert_eq!(world.metric("holdfast_calls{"), LEGS);
}

#[test]
fn the_delay_of_the_application_changes_both_ways_while_a_thousand_legs_wait() {
    delay_counts_at_once(|delay| Says { delay, device: None, window: 30, more: "" });
}

#[test]
fn the_delay_of_a_device_changes_both_ways_while_a_thousand_legs_wait() {
    delay_counts_at_once(|delay| Says { delay: 0, device: Some(delay), window: 30, more: "" });
}

#[test]
fn a_window_that_grows_while_a_thousand_legs_wait_keeps_them() {
    let says = |window| Says { delay: 1000, device: None, window, more: "" };
    let (mut world, calls) = legs_that_wait(says(4));
    world.configure(says(20));
    thread::sleep(Duration::from_millis(5000));
    assert_eq!(world.metric("holdfast_calls_lost_total{"), 0);
    assert_eq!(world.metric("holdfast_calls{"), LEGS);
    // And the peer comes back.
    let listener = TcpListener::bind(world.callee).unwrap();
    let mut callee = Ua::new(listener.accept().unwrap().0);
    for _ in 0..LEGS {
        let invite = callee.receive_after("ACK");
        assert!(invite.is("INVITE "), "{invite:?}");
        callee.send(&invite.response("200 OK", &world.contact()));
    }
    for _ in 0..LEGS {
        let ok = world.caller.receive_after("SIP/2.0 100");
        assert!(ok.is("SIP/2.0 200"), "{ok:?}");
        let number: usize = ok.header("Call-ID").split('@').next().unwrap().parse().unwrap();
        world.caller.send(&calls[number].request("ACK", 2));
    }
    world.wait_until("holdfast_recovery_excess_seconds_count", LEGS);
}

#[test]
fn a_window_that_shrinks_while_a_thousand_legs_wait_ends_them_at_their_next_decision() {
    let says = |window| Says { delay: 3000, device: None, window, more: "" };
    let (mut world, _calls) = legs_that_wait(says(30));
    world.configure(says(1));
    assert_eq!(world.metric("holdfast_calls{"), LEGS, "the wait that runs keeps its timer");
    world.wait_until("holdfast_calls_lost_total{", LEGS);
    assert_eq!(world.metric("holdfast_calls{"), 0);
    let mut byes = 0;
    while byes < LEGS {
        let message = world.caller.receive_after("SIP/2.0");
        assert!(message.is("BYE "), "{message:?}");
        assert!(message.header("Reason").contains("transport-error"));
        byes += 1;
    }
}

#[test]
fn a_wrong_configuration_is_refused_whole_and_the_one_in_force_stays() {
    let says = Says { delay: 700, device: None, window: 20, more: "" };
    let (mut world, listener) = World::new(says);
    let wrong = Says { delay: 9000, more: "[limits]\ncalls-max = 0\nflows-maxx = 1\n", ..says };
    world.server.configure(&text(wrong, world.server.address, world.metrics, world.callee));
    let line = world.server.wait_for("calls-max");
    assert!(line.contains(".toml:") && line.contains("below the minimum of 1 calls"), "{line}");
    world.server.wait_for("flows-max");
    world.server.wait_for("configuration refused");
    assert_eq!(world.metric("holdfast_config_reloads_total{result=\"refused\"}"), 1);
    // The old delay is in force.
    let mut callee = None;
    let call = world.call(1, &listener, &mut callee);
    callee.take().unwrap().reset();
    world.wait_until("holdfast_flows{", 1);
    drop(listener);
    world.caller.send(&call.request("INVITE", 2));
    world.wait_until(WAITING, 1);
    let began = Instant::now();
    world.wait_until(ATTEMPTS, 1);
    let waited = began.elapsed();
    assert!(waited < Duration::from_millis(7000), "{waited:?}: not the delay that was refused");
    // SIGHUP reads the same wrong file again, and says so again.
    world.server.signal("HUP");
    world.server.wait_for("configuration refused");
}

#[test]
fn a_device_that_is_taken_away_keeps_its_calls_and_gets_no_new_ones() {
    let says = Says { delay: 500, device: None, window: 20, more: "" };
    let (mut world, listener) = World::new(says);
    let mut callee = None;
    let call = world.call(1, &listener, &mut callee);
    let whole = text(says, world.server.address, world.metrics, world.callee);
    let (without, _) = whole.rsplit_once("[[device]]").unwrap();
    world.server.configure(without);
    let line = world.server.wait_for("configuration in force");
    assert!(line.contains("1 devices removed"), "{line}");
    world.caller.send(&request("INVITE", 2, 1, None));
    let answer = world.caller.receive_after("SIP/2.0 100");
    assert!(answer.is("SIP/2.0 404"), "{answer:?}");
    // Its call goes on, and is recovered with the application's delay.
    drop(callee);
    world.wait_until("holdfast_flows{", 1);
    world.caller.send(&call.request("INVITE", 2));
    let mut callee = world.recover(&call, &listener);
    world.end(&call, 3, &mut callee);
}

#[test]
fn what_is_read_at_the_start_only_stays_and_is_told() {
    let says = Says { delay: 500, device: None, window: 20, more: "" };
    let (mut world, listener) = World::new(says);
    let elsewhere = free_address();
    let text = text(says, elsewhere, free_address(), world.callee);
    world.server.configure(&text.replace("cores", "huge-pages = \"on\"\ncores"));
    world.server.wait_for("[server] listen has a new value, which is read at the next start");
    world.server.wait_for("[server] huge-pages has a new value");
    world.server.wait_for("[metrics] listen has a new value");
    assert!(TcpStream::connect(elsewhere).is_err());
    let mut callee = None;
    let call = world.call(1, &listener, &mut callee);
    assert!(call.target.contains(&world.server.address.to_string()), "{}", call.target);
}

#[test]
fn a_storm_of_changes_and_signals_harms_no_call() {
    let says = |delay| Says { delay, device: None, window: 20, more: "" };
    let (mut world, listener) = World::new(says(500));
    let mut callee = None;
    let calls: Vec<_> = (0..50).map(|number| world.call(number, &listener, &mut callee)).collect();
    let mut callee = callee.unwrap();
    for round in 0..200 {
        let more = if round % 3 == 0 { "[nonsense]\n" } else { "" };
        let says = Says { more, ..says(500 + round) };
        world.server.configure(&text(says, world.server.address, world.metrics, world.callee));
        world.server.signal("HUP");
        thread::sleep(Duration::from_millis(5));
    }
    world.configure(says(4999));
    let refused = world.metric("holdfast_config_reloads_total{result=\"refused\"}");
    let applied = world.metric("holdfast_config_reloads_total{result=\"applied\"}");
    assert!(refused > 5 && applied > 5, "{refused} refused, {applied} applied");
    for call in &calls {
        world.end(call, 2, &mut callee);
    }
}
