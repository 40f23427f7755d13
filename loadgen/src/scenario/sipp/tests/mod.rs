//! The import of SIPp's files: what is understood, what is not, and bad files.

mod against;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::scenario::program::{Awaited, Kind, Step};
use crate::scenario::span::Span;
use crate::scenario::template::Context;

fn nothing(name: &str, _max: usize) -> Result<Vec<u8>, String> {
    match name {
        "users.csv" => Ok(b"SEQUENTIAL\nalice;one\nbob;two\n".to_vec()),
        name => Err(format!("cannot read {name}: no such file")),
    }
}

fn imported(xml: &str) -> Result<(Scenario, Vec<Trouble>), Vec<Trouble>> {
    parse("test.xml", xml.as_bytes(), FieldFiles::new(&nothing), Duration::from_secs(2))
}

fn lines(troubles: &[Trouble]) -> String {
    troubles.iter().map(|trouble| format!("{trouble}\n")).collect()
}

/// One message inside a scenario, on line 3.
fn with(steps: &str) -> String {
    format!(
        "<scenario>\n<send><![CDATA[\nOPTIONS sip:a SIP/2.0\n]]></send>\n{steps}\n\
         <recv response=\"200\"/></scenario>"
    )
}

#[test]
fn steps_keep_their_order_numbers_and_jumps() {
    let (scenario, warnings) = imported(
        r#"<?xml version="1.0" encoding="ISO-8859-1" ?>
<!DOCTYPE scenario SYSTEM "sipp.dtd">
<!-- a comment -->
<scenario name="Steps">
  <send retrans="500" start_rtd="invite" lost="10">
    <![CDATA[
      INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0
      Call-ID: [call_id]
    ]]>
  </send>
  <recv response="100" optional="true" crlf="true"/>
  <recv response="486" optional="true" next="busy" chance="0.5"/>
  <recv response="200" rtd="invite" rrs="true" timeout="3000" ontimeout="busy"></recv>
  <nop/>
  <pause milliseconds="1500" next="again" chance="0.25"/>
  <pause/>
  <pause distribution="uniform" min="1000" max="2000"/>
  <pause distribution="normal" mean="1000" stdev="10"/>
  <pause distribution="normal" mean="1000" variance="100"/>
  <pause distribution="exponential" mean="500"/>
  <pause distribution="fixed" value="7"/>
  <label id="again"/>
  <send rtd="true"><![CDATA[ BYE sip:a SIP/2.0 ]]></send>
  <label id="busy"/>
  <recv response="200"/>
  <timewait milliseconds="4000"/>
  <Reference variables="x"/>
  <ResponseTimeRepartition value="10, 20"/>
  <CallLengthRepartition value="10, 20"/>
</scenario>"#,
    )
    .unwrap_or_else(|errors| panic!("{}", lines(&errors)));
    assert_eq!(lines(&warnings), "");
    assert_eq!(scenario.marks, ["rtd invite", "rtd 1"]);
    let steps = &scenario.caller;
    // A response time that nothing starts runs from the start of the call.
    assert_eq!(steps[0], Step::Start(1));
    let Step::Send(invite) = &steps[1] else { panic!() };
    assert_eq!((invite.line, invite.index, invite.lost), (5, 0, 100_000));
    assert_eq!(invite.kind, Kind::Request("INVITE".to_owned()));
    assert_eq!((invite.retransmit, invite.start), (Some(Duration::from_millis(500)), Some(0)));
    let Step::Recv(busy) = &steps[3] else { panic!() };
    assert_eq!((busy.optional, busy.next, busy.chance), (true, Some(14), Some(500_000)));
    let Step::Recv(ok) = &steps[4] else { panic!() };
    assert_eq!((&ok.what, ok.routes, ok.stop), (&Awaited::Response(200), true, Some(0)));
    assert_eq!(ok.timeout, Some((Duration::from_secs(3), Some(14))));
    assert_eq!(steps[6], Step::Chance { millionths: 250_000, to: 13 });
    let ms = Duration::from_millis;
    let spans = [
        Span::Fixed(ms(2000)),
        Span::Uniform(ms(1000), ms(2000)),
        Span::Normal(ms(1000), ms(10)),
        Span::Normal(ms(1000), ms(10)),
        Span::Exponential(ms(500)),
        Span::Fixed(ms(7)),
    ];
    let waits: Vec<_> = spans.into_iter().map(Step::Wait).collect();
    assert_eq!(steps[7..13], waits);
    let Step::Send(bye) = &steps[13] else { panic!() };
    assert_eq!((bye.index, bye.stop), (12, Some(1)), "a label has no number, a nop has");
    assert_eq!(steps[15], Step::Linger(ms(4000)));
    assert_eq!(steps.len(), 16);
    assert!(scenario.strict.caller && scenario.callee.is_empty());
}

#[test]
fn file_whose_first_message_is_received_is_a_callee() {
    let (scenario, _) = imported(
        "<scenario><recv request=\"OPTIONS\"/><send><![CDATA[\nSIP/2.0 200 OK\n[last_Via:]\n]]>\
         </send></scenario>",
    )
    .unwrap();
    assert!(scenario.caller.is_empty() && scenario.strict.callee && scenario.keeps_messages);
    let Step::Send(send) = &scenario.callee[1] else { panic!() };
    assert_eq!(send.kind, Kind::Response(200));
}

#[test]
fn latin_1_is_read_as_such() {
    let mut xml = with("").into_bytes();
    let at = xml.windows(5).position(|w| w == b"sip:a").unwrap() + 4;
    xml[at] = 0xe9;
    let (scenario, _) = parse("x", &xml, FieldFiles::new(&nothing), Duration::ZERO).unwrap();
    let Step::Send(send) = &scenario.caller[0] else { panic!() };
    let mut out = Vec::new();
    send.template.write(&Context::default(), &mut out);
    assert!(String::from_utf8(out).unwrap().contains("sip:é"));
}

#[test]
fn what_changes_the_wire_or_the_verdict_is_an_error_with_line_and_name() {
    let send = |inner: &str| with(&format!("<send><![CDATA[\n{inner}\n]]></send>"));
    let cases: &[(String, &str)] = &[
        (with("<sendCmd/>"), "test.xml:5: <sendCmd>: commands between SIPp processes (3PCC)"),
        (with("<dance/>"), "test.xml:5: <dance>: unknown element; understood are send, recv"),
        (with("<recv response=\"200\" test=\"1\"/>"), "<recv test>: branches on variables"),
        (
            with("<recv response=\"200\" what=\"1\"/>"),
            "<recv what>: unknown attribute; understood are request",
        ),
        (
            with("<recv response=\"200\" response_txn=\"a\"/>"),
            "<recv response_txn>: named transactions",
        ),
        (with("<recv response=\"20\"/>"), "response=\"20\": expected 100 to 699"),
        (with("<recv/>"), "expected either request=\"METHOD\" or response=\"STATUS\""),
        (with("<recv request=\"A\" response=\"200\"/>"), "expected either request"),
        (with("<recv request=\"A.*\" regexp_match=\"true\"/>"), "patterns for methods"),
        (
            with("<recv response=\"200\" optional=\"maybe\"/>"),
            "optional=\"maybe\": expected true or false",
        ),
        (
            with("<recv response=\"200\" optional=\"global\"/>"),
            "optional=\"global\" is not understood",
        ),
        (
            with("<recv response=\"200\" timeout=\"soon\"/>"),
            "timeout=\"soon\": expected milliseconds",
        ),
        (with("<recv response=\"200\" ontimeout=\"1\"/>"), "ontimeout without timeout"),
        (
            with("<recv response=\"200\" next=\"7\"/>"),
            "test.xml:5: no <label id=\"7\"> in this file",
        ),
        (with("<nop chance=\"0.5\"/>"), "chance without next"),
        (
            with("<label id=\"a\"/><nop next=\"a\" chance=\"50\"/>"),
            "chance=\"50\": expected a number from 0 to 1",
        ),
        (with("<label id=\"a\"/><label id=\"a\"/>"), "id=\"a\" stands twice"),
        (with("<label/>"), "id is missing"),
        (
            with("<pause distribution=\"gamma\"/>"),
            "distribution=\"gamma\" is not understood; understood are fixed",
        ),
        (with("<pause distribution=\"uniform\" min=\"3\"/>"), "max is missing"),
        (with("<pause distribution=\"uniform\" min=\"3\" max=\"1\"/>"), "min is above max"),
        (with("<pause variable=\"1\"/>"), "<pause variable>: unknown attribute"),
        (
            with("<nop><action><jump value=\"1\"/></action></nop>"),
            "the action <jump> is not understood",
        ),
        (
            with("<nop><action><exec int_cmd=\"stop_now\"/></action></nop>"),
            "<exec int_cmd> is not understood",
        ),
        (
            with("<nop><action><ereg check_it=\"true\"/></action></nop>"),
            "a check that fails the call",
        ),
        (with("<nop><shout/></nop>"), "<shout>: unknown element; understood is action"),
        (
            with("<recv response=\"100\" optional=\"true\"/>\n<pause/>"),
            "test.xml:5: <recv optional>",
        ),
        (
            with("<send lost=\"101\"><![CDATA[A b SIP/2.0]]></send>"),
            "lost=\"101\": expected a number from 0 to 100",
        ),
        (with("<send/>"), "<send>: the message must stand in <![CDATA[ ]]>"),
        (with("<send>A sip:a SIP/2.0</send>"), "the message must stand in <![CDATA[ ]]>"),
        (with("<send><![CDATA[ ]]></send>"), "expected a request line"),
        (send("INVITE sip:a"), "`INVITE sip:a`: expected a request line"),
        (send("[method] sip:a SIP/2.0"), "method and status not as keywords"),
        (send("SIP/2.0 99 What"), "expected a request line"),
        (
            send("A sip:a SIP/2.0\nX: y\nZ: [authentication]"),
            "in line 8: the keyword [authentication] is not understood",
        ),
        (send("A sip:a SIP/2.0\nX: [$1]"), "in line 7: the keyword [$1] is not understood"),
        (send("A sip:a SIP/2.0\nX: [field0]"), "[field0]: no field file is given"),
        (
            send("A sip:a SIP/2.0\nX: [field2 file=\"users.csv\"]"),
            "users.csv has a line with only 2 fields",
        ),
        (send("A sip:a SIP/2.0\nX: [field0 file=\"no.csv\"]"), "cannot read no.csv"),
        (send("A sip:a SIP/2.0\nX: [field0 line=\"3\"]"), "expected fieldN or fieldN file="),
        (send("A sip:a SIP/2.0\nX: [last_]"), "after last_ stands no name of a header"),
        (send("A sip:a SIP/2.0\nX: [len][len][len][len][len]"), "[len] stands more than 4 times"),
        (send("A sip:a SIP/2.0\nX: [call_id"), "the closing bracket is missing"),
        ("<scenario/>".into(), "no <send> and no <recv>"),
        ("<sipp/>".into(), "<sipp>: expected <scenario>"),
        ("<scenario>".into(), "not well-formed XML"),
        ("".into(), "not well-formed XML"),
        ("<scenario>\n<a></b></scenario>".into(), "test.xml:2: not well-formed XML"),
        ("<scenario>&who;</scenario>".into(), "not well-formed XML"),
    ];
    for (xml, expected) in cases {
        let Err(errors) = imported(xml) else { panic!("{xml}") };
        let all = lines(&errors);
        assert!(all.contains(expected), "{xml}\nsays {all}expected {expected}");
    }
    let both = imported(&with("<dance/>\n<dance/>")).unwrap_err();
    assert_eq!(both.iter().map(|error| error.line).collect::<Vec<_>>(), [5, 6]);
}

#[test]
fn what_changes_nothing_on_the_wire_is_a_warning() {
    let cases = [
        ("<nop><action><log message=\"x\"/></action></nop>", "<log>: nothing is logged"),
        ("<nop><action><exec command=\"true\"/></action></nop>", "no command is run"),
        ("<nop><action><exec play_pcap_audio=\"a.pcap\"/></action></nop>", "no media is sent"),
        ("<nop><action><ereg regexp=\"x\" assign_to=\"1\"/></action></nop>", "<ereg>: variables"),
        ("<recv response=\"401\" auth=\"true\"/>", "<recv auth>: challenges are not answered"),
        ("<nop rtd=\"1\" repeat_rtd=\"true\"/>", "<nop repeat_rtd>"),
        ("words", "text between elements is ignored: `words`"),
    ];
    for (steps, expected) in cases {
        let (_, warnings) = imported(&with(steps)).unwrap_or_else(|e| panic!("{}", lines(&e)));
        assert!(lines(&warnings).contains(expected), "{steps}: {}", lines(&warnings));
        assert_eq!(warnings[0].file, "test.xml");
        assert!((4..=5).contains(&warnings[0].line), "{}", warnings[0]);
    }
}

#[test]
fn bombs_giants_and_depths_are_refused() {
    let bomb = "<!DOCTYPE scenario [\n<!ENTITY a \"b\">\n<!ENTITY c \"&a;&a;\">]>\n<scenario>&c;</scenario>";
    assert_eq!(
        lines(&imported(bomb).unwrap_err()),
        "test.xml:2: entity declarations are not understood\n"
    );
    let giant = " ".repeat(SIPP_BYTES_MAX + 1);
    assert!(lines(&imported(&giant).unwrap_err()).contains("limit of 1048576 bytes"));
    let many = format!("<scenario>{}</scenario>", "<a/>".repeat(30_000));
    assert!(lines(&imported(&many).unwrap_err()).contains("limit of 20000"));
    let deep = format!("<scenario>{}{}</scenario>", "<nop>".repeat(9_000), "</nop>".repeat(9_000));
    assert!(lines(&imported(&deep).unwrap_err()).contains("beyond the limit of 8"));
    let wide: String = (0..600).map(|n| format!(" a{n}='\">'")).collect();
    let wide = with(&format!("<!-- ' --><nop{wide}/>"));
    let tag = "test.xml:5: a tag of more than the limit of 4096 bytes\n";
    assert_eq!(lines(&imported(&wide).unwrap_err()), tag);
    let long = with(&"<nop start_rtd=\"1\"/>".repeat(4_200));
    assert!(lines(&imported(&long).unwrap_err()).contains("more steps than the limit of 4096"));
    let marks: String = (0..40).map(|n| format!("<nop start_rtd=\"{n}\"/>")).collect();
    assert!(lines(&imported(&with(&marks)).unwrap_err()).contains("limit of 32"));
}

/// Pieces of which files are made, good and bad.
const PIECES: &[&str] = &[
    "<scenario name=\"a\">",
    "</scenario>",
    "<send retrans=\"5\">",
    "</send>",
    "<![CDATA[",
    "]]>",
    "\nINVITE sip:[service]@a SIP/2.0\n",
    "[",
    "]",
    "[len]",
    "[last_Via:]",
    "[field0",
    "\\x4",
    "é",
    "<recv response=\"200\"/>",
    "<recv request=\"BYE\" optional=\"true\" next=\"1\"/>",
    "<pause distribution=\"normal\" mean=\"1e400\" stdev=\"-1\"/>",
    "<pause milliseconds=\"9\"/>",
    "<label id=\"1\"/>",
    "<nop next=\"1\" chance=\"NaN\"/>",
    "<action>",
    "</action>",
    "&lt;",
    "\"",
    "<timewait milliseconds=\"1\"/>",
    "<!-- ",
    " -->",
    "<?xml version=\"1.0\"?>",
    "<",
    ">",
    "\r\n\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic_the_import(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse("x", &bytes, FieldFiles::new(&nothing), Duration::ZERO);
    }

    #[test]
    fn no_pieces_panic_the_import_and_jumps_stay_inside(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..30)) {
        let inner = pieces.concat();
        for xml in [inner.clone(), with(&inner)] {
            let Ok((scenario, _)) = imported(&xml) else { continue };
            let steps = [scenario.caller, scenario.callee].concat();
            let mut out = Vec::new();
            for step in &steps {
                match step {
                    Step::Goto(to) | Step::Chance { to, .. } => prop_assert!(*to <= steps.len()),
                    Step::Recv(recv) => prop_assert!(recv.next.is_none_or(|to| to <= steps.len())),
                    Step::Send(send) => {
                        let last = inner.as_bytes();
                        send.template.write(&Context { last, ..Context::default() }, &mut out);
                    }
                    _ => {}
                }
            }
        }
    }
}
