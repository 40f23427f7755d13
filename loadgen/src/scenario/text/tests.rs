//! The own format: what is read, every error, and texts of chance.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::scenario::builtin;
use crate::scenario::fields::FieldFiles;
use crate::scenario::program::*;
use crate::scenario::span::Span;
use crate::scenario::template::Context;

fn read(name: &str, _max: usize) -> Result<Vec<u8>, String> {
    match name {
        "users.csv" => Ok(b"SEQUENTIAL\nalice;one\nbob;two\n".to_vec()),
        name => Err(format!("cannot read {name}: no such file")),
    }
}

fn parsed(text: &str) -> Result<(Text, Vec<Trouble>), Vec<Trouble>> {
    parse("test.scenario", text.as_bytes(), FieldFiles::new(&read))
}

fn scenario(text: &str) -> Scenario {
    match parsed(text) {
        Ok((Text::Scenario(scenario), _)) => scenario,
        other => panic!("no scenario: {other:?}"),
    }
}

fn text_of(
    template: &crate::scenario::template::Template,
    fields: &[super::super::fields::FieldFile],
) -> String {
    let context =
        Context { call_number: 7, local_ip: "127.0.0.5", fields, rows: &[1], ..Context::default() };
    let mut out = Vec::new();
    template.write(&context, &mut out);
    String::from_utf8(out).unwrap()
}

/// Every word of the language once.
const ALL: &str = r#"
scenario every_word "All that can be said"   # and a comment
fields "users.csv"
caller
  options to server expect 200..699 timeout 500ms
  invite inactive header "X-User: [field1]; n=[call_number]" refused 503
    header "X-Plain: a \"quoted\" [[word]"
    timeout 32s
    as "first"
  mark "talk"
  wait 1s
  wait 1s..3s
  wait exp 2s
  wait normal 3s 500ms
  meet everyone
  reinvite
  reinvite same
  reinvite without sdp expect 2xx
  update
  update recvonly
  info body "application/dtmf-relay" "Signal=1\nDuration=160"
  message "hello [field0]"
  request NOTIFY header "Event: talk"
  repeat 3
    repeat 2
      reinvite sendonly
    end
    lap "talk"
  end
  chance 30%
    await BYE timeout 5s
    success
  otherwise
    chance 12.5%
      fail "as told"
    end
  end
  bye
callee
  ring header "X-Ring: yes"
  progress 183 "Half Way" with sdp
  chance 10%
    reject 486 "Busy Here"
    refuse
  otherwise
    answer without sdp
  end
  wait 20min
  reinvite sendonly
  bye
fault at 10s reset on 50% of callees   # taken as it is
"#;

#[test]
fn every_word_of_the_language_is_read() {
    let all = scenario(ALL);
    assert_eq!((all.name.as_str(), all.about.as_str()), ("every_word", "All that can be said"));
    assert_eq!(all.faults, [(51, "at 10s reset on 50% of callees".to_owned())]);
    assert_eq!((all.counters, all.meets.as_slice()), (2, ["everyone".to_owned()].as_slice()));
    assert_eq!(all.fields.len(), 1);
    let Step::Request(options) = &all.caller[0] else { panic!() };
    assert_eq!((&options.to, options.expect.clone()), (&Target::Server, 200..=699));
    let Step::Request(invite) = &all.caller[1] else { panic!() };
    assert_eq!(invite.offer, Some(Offer::Fresh(Direction::Inactive)));
    assert_eq!(
        (invite.refused.clone(), invite.timeout),
        (Some(503..=503), Some(Duration::from_secs(32)))
    );
    assert_eq!(all.marks[usize::from(invite.mark.unwrap())], "first");
    let headers = text_of(&invite.headers, &all.fields);
    assert_eq!(headers, "X-User: two; n=7\r\nX-Plain: a \"quoted\" [word]\r\n");
    let waits: Vec<_> = all
        .caller
        .iter()
        .filter_map(|step| match step {
            Step::Wait(span) => Some(*span),
            _ => None,
        })
        .collect();
    let seconds = Duration::from_secs;
    assert_eq!(
        waits,
        [
            Span::Fixed(seconds(1)),
            Span::Uniform(seconds(1), seconds(3)),
            Span::Exponential(seconds(2)),
            Span::Normal(seconds(3), Duration::from_millis(500)),
        ]
    );
    let info = all.caller.iter().find_map(|step| match step {
        Step::Request(request) if request.method == "INFO" => Some(request),
        _ => None,
    });
    let info = info.unwrap();
    assert_eq!(text_of(&info.body.as_ref().unwrap().text, &[]), "Signal=1\r\nDuration=160");
    let Step::Respond(progress) = &all.callee[1] else { panic!() };
    assert_eq!((progress.status, progress.reason.as_str(), progress.sdp), (183, "Half Way", true));
}

#[test]
fn loops_and_branches_jump_where_their_ends_are() {
    let text = "scenario a\ncaller\ninvite\nchance 30%\nwait 1s\notherwise\nwait 2s\nend\n\
        repeat 4\nwait 3s\nend\nbye";
    let steps = scenario(text).caller;
    assert_eq!(steps[1], Step::Chance { millionths: 700_000, to: 4 });
    assert_eq!(steps[3], Step::Goto(5));
    assert_eq!(steps[6], Step::Repeat { counter: 0, times: 4, to: 5 });
    assert_eq!(steps.len(), 8);
}

#[test]
fn callee_rings_and_answers_when_the_text_says_nothing() {
    let short = scenario("scenario a\ncaller\ninvite\nbye");
    let said = scenario("scenario a\ncaller\ninvite\nbye\ncallee\nring\nanswer");
    let statuses = |steps: &[Step]| -> Vec<_> {
        steps
            .iter()
            .map(|step| match step {
                Step::Respond(respond) => (respond.status, respond.reason.clone(), respond.sdp),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(statuses(&short.callee), statuses(&said.callee));
}

#[test]
fn cancelled_invite_expects_487_and_leaves_no_call() {
    let text = "scenario a\ncaller\ninvite cancel after 100ms..200ms\ncallee\nring\nwait 1h";
    let Step::Request(invite) = &scenario(text).caller[0] else { panic!() };
    assert_eq!(invite.expect, 487..=487);
    let late = parsed("scenario a\ncaller\ninvite\ncancel after 100ms\nbye").unwrap_err();
    assert_eq!(late[0].to_string(), "test.scenario:5: `bye`: the call is over there");
}

/// Writes steps back as text, so that the text can be read again.
fn written(scenario: &Scenario) -> String {
    let mut out = format!("scenario {} \"{}\"\n", scenario.name, scenario.about);
    for (block, steps) in [("caller", &scenario.caller), ("callee", &scenario.callee)] {
        out += &format!("{block}\n");
        let mut ends = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            ends.iter().filter(|end| **end == at).for_each(|_| out += "end\n");
            ends.retain(|end| *end != at);
            let loops = steps.iter().rev().filter_map(|s| match s {
                Step::Repeat { times, to, .. } if *to == at => Some(times),
                _ => None,
            });
            loops.for_each(|times| out += &format!("repeat {times}\n"));
            write_step(scenario, steps, step, &mut ends, &mut out);
        }
        ends.iter().for_each(|_| out += "end\n");
    }
    out
}

fn write_step(s: &Scenario, steps: &[Step], step: &Step, ends: &mut Vec<usize>, out: &mut String) {
    let lines = |template| {
        let text = text_of(template, &[]);
        text.lines().map(|line| format!("header {line:?}\n")).collect::<String>()
    };
    *out += &match step {
        Step::Request(r) => {
            let verb = match (r.method.as_str(), &r.to) {
                ("INVITE", Target::Called) => "invite".to_owned(),
                ("INVITE", _) => "reinvite".to_owned(),
                (method, _) => format!("request {method}")
                    .replace("request BYE", "bye")
                    .replace("request UPDATE", "update"),
            };
            let offer = match r.offer {
                Some(Offer::Same) => "same",
                Some(Offer::Fresh(Direction::SendOnly)) => "sendonly",
                Some(Offer::Fresh(Direction::ReceiveOnly)) => "recvonly",
                Some(Offer::Fresh(Direction::Inactive)) => "inactive",
                Some(Offer::Fresh(Direction::Both)) => "sendrecv",
                None if r.method == "INVITE" => "without sdp",
                None => "",
            };
            let mark = &s.marks[usize::from(r.mark.unwrap())];
            let expect = format!("{}..{}", r.expect.start(), r.expect.end());
            let user = if matches!(r.to, Target::Server) { "to server" } else { "" };
            format!("{verb} {offer} as \"{mark}\" expect {expect} {user}\n{}", lines(&r.headers))
        }
        Step::Respond(r) => {
            let verb = match r.status {
                180 => "ring".to_owned(),
                200 => "answer".to_owned(),
                status @ 300.. => format!("reject {status}"),
                status => format!("progress {status}"),
            };
            let sdp = if r.sdp { "with" } else { "without" };
            format!("{verb} {:?} {sdp} sdp\n{}", r.reason, lines(&r.headers))
        }
        Step::Wait(Span::Fixed(time)) => format!("wait {}us\n", time.as_micros()),
        Step::Wait(Span::Uniform(a, b)) => {
            format!("wait {}us..{}us\n", a.as_micros(), b.as_micros())
        }
        Step::Wait(Span::Exponential(mean)) => format!("wait exp {}us\n", mean.as_micros()),
        Step::Wait(Span::Normal(a, b)) => {
            format!("wait normal {}us {}us\n", a.as_micros(), b.as_micros())
        }
        Step::Await(a) => format!("await {} timeout {}s\n", a.method, a.timeout.unwrap().as_secs()),
        Step::Meet(n) => format!("meet {}\n", s.meets[usize::from(*n)]),
        Step::Start(n) => format!("mark \"{}\"\n", s.marks[usize::from(*n)]),
        Step::Stop(n) => format!("lap \"{}\"\n", s.marks[usize::from(*n)]),
        Step::Repeat { .. } => "end\n".to_owned(),
        Step::Chance { millionths, to } => {
            let branches = match steps[to - 1] {
                Step::Goto(end) => end,
                _ => *to,
            };
            ends.push(branches);
            format!("chance {}%\n", f64::from(ALWAYS - millionths) / 10_000.0)
        }
        Step::Goto(_) => "otherwise\n".to_owned(),
        Step::End(Outcome::Success) => "success\n".to_owned(),
        Step::End(Outcome::Refused) => "refuse\n".to_owned(),
        Step::End(Outcome::Failure(why)) => format!("fail {why:?}\n"),
        Step::Send(_) | Step::Recv(_) | Step::Linger(_) => panic!("not of this language"),
    };
}

/// Without what the text does not say: lines of the file, and the order in which names came.
fn canonical(mut scenario: Scenario) -> Scenario {
    let old = scenario.marks.clone();
    scenario.marks.sort();
    let new = scenario.marks.clone();
    let renumber = |mark: &mut u8| {
        *mark = new.iter().position(|name| *name == old[usize::from(*mark)]).unwrap() as u8;
    };
    for step in scenario.caller.iter_mut().chain(&mut scenario.callee) {
        match step {
            Step::Request(request) => {
                request.line = 0;
                request.mark.iter_mut().for_each(renumber);
            }
            Step::Start(mark) | Step::Stop(mark) => renumber(mark),
            Step::Respond(respond) => respond.line = 0,
            Step::Await(wait) => wait.line = 0,
            _ => {}
        }
    }
    scenario.faults.clear();
    scenario
}

#[test]
fn text_written_from_a_program_is_read_as_the_same_program() {
    // Without what the writer above does not write: fields, bodies, and limits of requests.
    let text = ALL.replace("fields \"users.csv\"", "").replace("[field1]; n=[call_number]", "x");
    let text =
        text.replace("[[word]", "word").replace(" refused 503", "").replace("timeout 32s", "");
    let text = text.replace(" timeout 500ms", "").replace("message \"hello [field0]\"", "");
    let text: String =
        text.lines().filter(|line| !line.contains("body")).map(|l| format!("{l}\n")).collect();
    let first = scenario(&text);
    let again = scenario(&written(&first));
    assert_eq!(first.marks.iter().filter(|mark| *mark == "invite").count(), 0, "it is `first`");
    assert_eq!(canonical(first), canonical(again));
}

#[test]
fn every_error_names_file_line_word_and_what_is_allowed() {
    let caller = |line: &str| format!("scenario a\ncaller\ninvite\n{line}\n");
    let callee = |line: &str| format!("scenario a\ncaller\ninvite\ncallee\n{line}\n");
    let line = |text: &str| text.lines().count().max(1) as u32;
    let cases: &[(String, &str)] = &[
        (String::new(), "is empty; expected `scenario NAME"),
        ("hello".into(), "`hello`: expected `scenario NAME \"about\"` as the first line"),
        ("scenario".into(), "expected a name at the end"),
        ("scenario a/b".into(), "`a/b`: expected a name of letters, digits, - and _"),
        ("scenario a b".into(), "`b`: expected a text about it in double quotes"),
        ("scenario a\nscenario b".into(), "`scenario` stands twice"),
        ("scenario a\nfields \"none.csv\"".into(), "cannot read none.csv"),
        (
            "scenario a\nfields none.csv".into(),
            "`none.csv`: expected the name of a field file in double",
        ),
        ("scenario a\ncaller\nfields \"users.csv\"".into(), "`fields` must stand before"),
        ("scenario a\ncaller\ninvite\ncaller".into(), "`caller` stands twice"),
        (
            "scenario a\nring".into(),
            "`ring`: expected scenario, fields, mix, caller, callee or fault",
        ),
        ("scenario a\nmix 30 call".into(), "`30`: expected a share above 0% and up to 100%"),
        ("scenario a\nmix 0% call".into(), "`0%`: expected a share"),
        ("scenario a\nmix 90% call".into(), "add up to 90%, expected 100%"),
        (caller("jump 3"), "`jump`: expected invite, reinvite, update"),
        (caller("invite"), "`invite` stands twice"),
        (caller("bye\nbye"), "`bye`: the call is over there"),
        ("scenario a\ncaller\nbye".into(), "`bye` without `invite` before it"),
        (
            "scenario a\ncaller\nheader \"A: b\"".into(),
            "`header`: no request or response stands before it",
        ),
        (caller("reinvite sideways"), "`sideways`: expected header, expect, refused"),
        (caller("reinvite expect 100"), "`100`: expected 486, 200..299 or 2xx"),
        (caller("reinvite expect 299..200"), "`299..200`: expected 486"),
        (caller("reinvite expect 7xx"), "`7xx`: expected 486"),
        (
            caller("reinvite timeout 5"),
            "`5` is no time; expected a number with us, ms, s, min or h",
        ),
        (caller("reinvite timeout 25h"), "`25h` is no time"),
        (caller("reinvite timeout"), "expected a time at the end"),
        (caller("bye cancel after 1s"), "`cancel`: only an INVITE can be cancelled"),
        (caller("reinvite cancel 1s"), "`cancel`: expected `cancel after TIME`"),
        (caller("reinvite without"), "`without`: expected `without sdp`"),
        (caller("reinvite body \"a/b\" \"c\""), "`body`: this request has an SDP"),
        (caller("info body \"text\" \"c\""), "`text`: expected a media type like text/plain"),
        (
            caller("info header X-A: b"),
            "`X-A:`: expected a header line like \"X-Name: value\" in double quotes",
        ),
        (caller("info header \"no colon\""), "`no colon`: expected a header line"),
        (caller("info header \"a b: c\""), "`a b: c`: expected a header line"),
        (caller("info header \"A: b\\nC: d\""), "expected a header line"),
        (
            caller("info header \"call-id: x\""),
            "`call-id`: the user agent writes this header itself",
        ),
        (caller("info header \"A: [nothing]\""), "[nothing] is no keyword; allowed are call_id"),
        (caller("info header \"A: [branch]\""), "[branch] cannot stand here"),
        (caller("info header \"A: [call_id\""), "`[call_id`: the closing bracket is missing"),
        (caller("info header \"A: [field0]\""), "[field0]: no field file is given"),
        (caller("info header \"A: [field]\""), "[field]: expected fieldN"),
        (caller("info header \"A"), "the closing quote is missing"),
        (caller("info header \"A: \\t\""), "`\\t`: allowed after \\ are"),
        (caller("info header \"A: b\"x"), "`x`: a blank must follow the quote"),
        (caller("in\"fo"), "a quote must stand at the start of a word"),
        (caller("info to \"bob\""), "`to`: a request of the dialog goes to its peer"),
        (
            "scenario a\ncaller\nmessage to \"a b\"".into(),
            "`a b`: expected the user part of a SIP URI",
        ),
        (caller("request notify"), "`notify`: expected a method like NOTIFY"),
        (caller("request BYE"), "`request BYE`: invite, reinvite and bye have words of their own"),
        (caller("wait"), "expected a time: `1s`, `1s..3s`, `exp 3s` or `normal 3s 500ms`"),
        (caller("wait 3s..1s"), "`3s..1s`: the first time is above the second"),
        (caller("wait exp"), "expected a time"),
        (caller("wait 1s now"), "`now`: expected the end of the line"),
        (caller("meet a\nmeet a"), "`meet a` stands twice"),
        (caller("chance 10%\nmeet a"), "`meet` inside `chance`"),
        (caller("repeat 0\nwait 1s"), "`0`: expected how often, 1 to 1000000000"),
        (caller("repeat 2\nbye"), "`bye` inside `repeat`: a call has one"),
        (caller("chance 130%\nwait 1s"), "`130%`: expected a share above 0% and up to 100%"),
        (caller("otherwise"), "`otherwise` without `chance` before it"),
        (caller("end"), "`end` without `repeat` or `chance` before it"),
        (caller("repeat 2\nend"), "`repeat` without a step in it"),
        (caller("repeat 2"), "`repeat` without its `end`"),
        (caller("chance 2%"), "`chance` without its `end`"),
        (caller("lap \"x\""), "`lap x` without `mark x` before it"),
        (caller("mark \"\""), "expected a name of 1 to 64 bytes"),
        (caller("fail"), "expected why the call has failed in double quotes"),
        (caller("success\nwait 1s"), "`wait` is never reached"),
        (caller("answer"), "`answer` stands under `callee` only"),
        (callee("answer\nring"), "`ring` after the final response"),
        (callee("bye"), "no request before `answer`"),
        (callee("invite"), "`invite`: a callee makes no calls"),
        (callee("register"), "`register`: a callee registers nothing"),
        (callee("reject 200"), "`200`: expected a final status that is no success, 300 to 699"),
        (callee("progress 200"), "`200`: expected a provisional status, 101 to 199"),
        (callee("reject 486 with sdp"), "`with sdp`: a rejection has none"),
        (callee("answer timeout 3s"), "`timeout`: expected header, with sdp, without sdp"),
        (callee("repeat 2\nanswer"), "`answer` inside `repeat`"),
        (callee("ring \"a\\nb\""), "a reason phrase is one line"),
        ("scenario a\n\"caller\"".into(), "`caller`: expected a word without quotes"),
        ("scenario a\ncallee\nanswer".into(), "has no step under `caller`, and no `mix`"),
        ("scenario a\nmix 100% call\ncaller\ninvite".into(), "a scenario is one or the other"),
        (format!("scenario a\n{}", " ".repeat(LINE_BYTES_MAX + 1)), "above the limit of 8192"),
    ];
    for (text, expected) in cases {
        let errors = parsed(text).expect_err(text);
        let all: String = errors.iter().map(|error| format!("{error}\n")).collect();
        assert!(all.contains(expected), "{text}\nsays {all}expected {expected}");
        assert!(all.starts_with("test.scenario"), "{all}");
        assert!(errors.iter().all(|error| error.line <= line(text)), "{all}");
    }
    let errors = parsed(&caller("wait 1s\nwait x\nwait 2s\nwait y")).unwrap_err();
    assert_eq!(errors.iter().map(|error| error.line).collect::<Vec<_>>(), [5, 7]);
}

#[test]
fn limits_are_kept() {
    let refused = |text: String, expected: &str| {
        let all = format!("{:?}", parsed(&text).unwrap_err());
        assert!(all.contains(expected), "{all}");
    };
    let many = |line: &str, count: usize| line.repeat(count);
    let caller = "scenario a\ncaller\ninvite\n";
    refused(many("#\n", TEXT_BYTES_MAX), "limit of 262144 bytes");
    refused(format!("{caller}{}", many("wait 1s\n", STEPS_MAX)), "limit of 4096");
    refused(format!("{caller}{}", many("repeat 2\n", 9)), "beyond the limit of 8");
    refused(format!("{caller}info\n{}", many("header \"A: b\"\n", 33)), "limit of 32");
    refused(format!("scenario a\n{}", many("fault x\n", 65)), "limit of 64");
    refused(format!("scenario a\n{}", many("mix 1% call\n", 33)), "limit of 32");
    let marks: String = (0..33).map(|n| format!("mark \"{n}\"\n")).collect();
    refused(format!("{caller}{marks}"), "limit of 32");
    let meets: String = (0..33).map(|n| format!("meet m{n}\n")).collect();
    refused(format!("{caller}{meets}"), "limit of 32");
    let bad = parse("x", b"scenario a\n\xff", FieldFiles::new(&read)).unwrap_err();
    assert_eq!(bad[0].to_string(), "x:2: is not UTF-8 text");
}

/// Lines of the language and some that are nearly so.
fn any_line() -> impl Strategy<Value = String> {
    let words: Vec<&str> =
        ALL.split_whitespace().chain(["%", "\"", "[", "..", "é", "99999999999"]).collect();
    let lines: Vec<&str> = ALL.lines().collect();
    prop_oneof![
        prop::sample::select(lines).prop_map(str::to_owned),
        prop::collection::vec(prop::sample::select(words), 0..6).prop_map(|words| words.join(" ")),
        ".{0,40}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse("x", &bytes, FieldFiles::new(&read));
    }

    #[test]
    fn no_lines_panic_the_reader_and_jumps_stay_inside(lines in prop::collection::vec(any_line(), 0..60)) {
        let text = format!("scenario a\ncaller\n{}", lines.join("\n"));
        if let Ok((Text::Scenario(scenario), _)) = parsed(&text) {
            for steps in [&scenario.caller, &scenario.callee] {
                for (at, step) in steps.iter().enumerate() {
                    match step {
                        Step::Goto(to) | Step::Chance { to, .. } => {
                            prop_assert!(at < *to && *to <= steps.len());
                        }
                        Step::Repeat { to, counter, .. } => {
                            prop_assert!(*to < at && *counter < scenario.counters);
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    #[test]
    fn no_damaged_builtin_panics_the_reader(which in 0usize..8, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let name = builtin::names().nth(which).unwrap();
        let mut bytes = builtin::text(name).unwrap().as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = parse("x", &bytes, FieldFiles::new(&read));
    }
}
