//! More new calls than the server can take, on one connection.

use super::*;

/// So many that reading them takes a while.
const FLOOD: u32 = 3000;

/// An INVITE to a number that nobody has: 404, unless it is refused before anybody looks.
fn to_nobody(number: u32) -> String {
    request("INVITE", number, 1, None).replace("7002@", "7009@")
}

/// Sends the flood, and in the same breath `last`; gives how many were answered 404 and 503.
fn flood(world: &mut World, first: u32, last: &str) -> (u32, u32) {
    let invites: String = (first..first + FLOOD).map(to_nobody).collect();
    world.caller.send(&(invites + last));
    let (mut unknown, mut refused) = (0, 0);
    while unknown + refused < FLOOD {
        let answer = world.caller.receive();
        if answer.is("SIP/2.0 404") {
            unknown += 1;
        } else if answer.is("SIP/2.0 503") {
            assert!(!answer.header("Retry-After").is_empty(), "{answer:?}");
            refused += 1;
        } else {
            assert!(answer.is("SIP/2.0 100"), "{answer:?}");
        }
    }
    (unknown, refused)
}

#[test]
fn new_calls_that_waited_too_long_are_refused_and_what_stands_is_served() {
    let says = |more| Says { delay: 500, device: None, window: 20, more };
    let (mut world, listener) = World::new(says("[limits]\nqueueing-delay-max = 1\n"));
    let mut callee = None;
    let call = world.call(1, &listener, &mut callee);
    let mut callee = callee.unwrap();

    // The INFO has waited longest of all, and belongs to a call that stands.
    let (_, refused) = flood(&mut world, 1000, &call.request("INFO", 2));
    let info = callee.receive();
    assert!(info.is("INFO "), "{info:?}");
    callee.send(&info.response("200 OK", &world.contact()));
    assert!(world.caller.receive().is("SIP/2.0 200"));
    assert!(refused > 0, "all {FLOOD} were taken");
    let metric = "holdfast_calls_refused_total{shard=\"0\",reason=\"queueing-delay\"}";
    assert_eq!(world.metric(metric), u64::from(refused));

    // When the flood is over new calls are taken again.
    let deadline = Instant::now() + PATIENCE;
    for number in 10_000.. {
        world.caller.send(&to_nobody(number));
        if world.caller.receive_after("SIP/2.0 100").is("SIP/2.0 404") {
            break;
        }
        assert!(Instant::now() < deadline, "refused for ever");
        thread::sleep(Duration::from_millis(20));
    }

    // Switched off while the server runs.
    world.configure(says("[limits]\nqueueing-delay-max = 0\n"));
    assert_eq!(flood(&mut world, 20_000, "").1, 0);
    world.end(&call, 3, &mut callee);
}
