//! The metrics endpoint, to scrapers and to others.

use super::*;

const SAYS: Says<'_> = Says { delay: 500, device: None, window: 20, more: "" };

/// Names and labels of a sample, and its value; the line is read strictly.
fn sample(line: &str) -> (String, f64) {
    let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
    let bare = name.split('{').next().unwrap();
    assert!(bare.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
    assert!(name == bare || name.ends_with('}'), "{line}");
    (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
}

#[test]
fn a_scrape_tells_calls_transactions_recoveries_and_refused_input() {
    let (mut world, listener) = World::new(SAYS);
    let mut callee = None;
    let call = world.call(1, &listener, &mut callee);
    callee.take().unwrap().reset();
    world.wait_until("holdfast_flows{", 1);
    drop(listener);
    world.caller.send(&call.request("INVITE", 2));
    world.wait_until("holdfast_recoveries_waiting{", 1);
    let listener = TcpListener::bind(world.callee).unwrap();
    let mut callee = world.recover(&call, &listener);
    world.end(&call, 3, &mut callee);
    let mut rude = Ua::connect(world.server.address);
    rude.send("OPTIONS sip:x SIP/3.0\r\nContent-Length: 0\r\n\r\n");
    assert!(rude.is_closed());

    let text = scrape(world.metrics);
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).map(sample).collect();
    let value = |name: &str| {
        let found = samples.iter().find(|(sample, _)| sample == name);
        found.unwrap_or_else(|| panic!("no {name} in {text}")).1
    };
    for (name, expected) in [
        ("holdfast_calls{shard=\"0\"}", 0.0),
        ("holdfast_calls_established_total{shard=\"0\"}", 1.0),
        ("holdfast_calls_lost_total{shard=\"0\"}", 0.0),
        ("holdfast_recoveries_waiting{shard=\"0\"}", 0.0),
        ("holdfast_recoveries_started_total{shard=\"0\",cause=\"connect\"}", 1.0),
        (
            "holdfast_recoveries_ended_total{shard=\"0\",cause=\"connect\",outcome=\"recovered\"}",
            1.0,
        ),
        ("holdfast_recovery_attempts_total{shard=\"0\"}", 1.0),
        ("holdfast_requests_received_total{shard=\"0\",method=\"INVITE\",status=\"200\"}", 2.0),
        ("holdfast_requests_received_total{shard=\"0\",method=\"BYE\",status=\"200\"}", 1.0),
        ("holdfast_requests_sent_total{shard=\"0\",method=\"INVITE\",status=\"200\"}", 2.0),
        ("holdfast_requests_sent_total{shard=\"0\",method=\"INVITE\",status=\"transport\"}", 1.0),
        ("holdfast_input_refused_total{shard=\"0\",reason=\"version\"}", 1.0),
        ("holdfast_recovery_excess_seconds_count{shard=\"0\"}", 1.0),
        ("holdfast_recovery_excess_seconds_bucket{le=\"+Inf\",shard=\"0\"}", 1.0),
        ("holdfast_calls_refused_total{shard=\"0\",reason=\"rate\"}", 0.0),
        ("holdfast_recovery_excess_seconds_bucket{le=\"10.0\",shard=\"0\"}", 1.0),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    assert!(value("holdfast_queueing_delay_seconds_count{shard=\"0\"}") > 5.0);
    let reference = std::fs::read_to_string("docs/METRICS.md").unwrap();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(reference.contains(&format!("`{name}`")), "{name} is not in docs/METRICS.md");
    }
}

#[test]
fn what_is_no_scrape_is_answered_so() {
    let (world, _listener) = World::new(SAYS);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405"),
        ("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
        ("OPTIONS sip:x SIP/2.0\r\n\r\n", "400"),
        ("\0\0\0\0\r\n\r\n", "400"),
    ] {
        let answer = http(world.metrics, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut stream = TcpStream::connect(world.metrics).unwrap();
    // It may have been answered and closed before all is written.
    let _ = stream.write_all(long.as_bytes());
    assert!(scrape(world.metrics).contains("holdfast_calls"));
}

#[test]
fn silent_scrapers_give_their_places_up() {
    let (world, _listener) = World::new(SAYS);
    let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(world.metrics).unwrap()).collect();
    let scraped = thread::scope(|scope| {
        let mut later = TcpStream::connect(world.metrics).unwrap();
        later.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        later.set_read_timeout(Some(4 * PATIENCE)).unwrap();
        scope
            .spawn(move || {
                let mut text = String::new();
                later.read_to_string(&mut text).unwrap();
                text
            })
            .join()
            .unwrap()
    });
    drop(silent);
    assert!(scraped.contains("# EOF"), "{scraped}");
}
