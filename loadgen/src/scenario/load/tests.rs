use std::time::Duration;

use super::*;
use crate::scenario::program::{Offer, Outcome, Step};

fn nothing(name: &str, _max: usize) -> Result<Vec<u8>, String> {
    Err(format!("cannot read {name}: no such file"))
}

#[test]
fn every_builtin_is_loaded_without_a_warning_and_says_what_it_is() {
    for name in builtin::names() {
        let loaded = load(name, Extras::default(), &nothing).unwrap();
        assert_eq!(loaded.warnings, []);
        assert_eq!(loaded.mixture.name, name);
        assert!(!loaded.mixture.about.is_empty());
        let line = format!("{name:<10} {}\n", loaded.mixture.about);
        assert!(builtin::list().contains(&line), "{}", builtin::list());
        for part in &loaded.mixture.parts {
            assert!(!part.scenario.caller.is_empty() && !part.scenario.callee.is_empty());
        }
    }
}

#[test]
fn builtins_do_what_their_names_say() {
    let steps = |name: &str| {
        let loaded = load(name, Extras::default(), &nothing).unwrap();
        loaded.mixture.parts[0].scenario.caller.clone()
    };
    let requests = |name: &str| -> Vec<_> {
        let all = steps(name).into_iter();
        all.filter_map(|step| if let Step::Request(r) = step { Some(r) } else { None }).collect()
    };
    let meets = steps("drill").iter().filter(|s| matches!(s, Step::Meet(_))).count();
    assert_eq!(meets, 3);
    assert_eq!(requests("overload")[0].refused, Some(503..=503));
    assert_eq!(requests("refresh")[1].offer, Some(Offer::Same));
    assert_eq!(requests("register").len(), 3);
    assert_eq!(requests("options")[0].expect, 200..=699);
    let mixed = load("mixed", Extras::default(), &nothing).unwrap().mixture;
    let weights: Vec<_> = mixed.parts.iter().map(|part| part.weight).collect();
    assert_eq!(weights, [700_000, 200_000, 50_000, 50_000]);
    assert_eq!(mixed.parts[1].scenario.name, "reinvite");
}

#[test]
fn mixture_of_what_cannot_be_mixed_is_refused_with_its_line() {
    let refused = |part: &str, expected: &str| {
        let text = format!("scenario m\nmix 50% call\nmix 50% {part}\n");
        let read = |name: &str, _: usize| match name {
            "m.scenario" => Ok(text.clone().into_bytes()),
            "uas.xml" => Ok(b"<scenario><recv request=\"OPTIONS\"/></scenario>".to_vec()),
            name => Err(format!("cannot read {name}: no such file")),
        };
        let errors = load("m.scenario", Extras::default(), &read).unwrap_err();
        assert!(errors[0].to_string().contains(expected), "{}", errors[0]);
    };
    refused("drill", "m.scenario:3: `mix drill`: it has a `meet`");
    refused("mixed", "m.scenario:3: `mix mixed`: a mixture cannot be part of another");
    refused("uas.xml", "m.scenario:3: `mix uas.xml`: it has no caller");
    refused("gone", "m.scenario:3: `mix gone`: cannot read gone: no such file");
}

const UAC: &str = "<scenario><send><![CDATA[\nOPTIONS sip:a SIP/2.0\n]]></send>\
    <recv response=\"200\" rtd=\"true\"/><pause/></scenario>";
const UAS: &str = "<scenario><recv request=\"OPTIONS\" start_rtd=\"x\"/><send rtd=\"x\">\
    <![CDATA[\nSIP/2.0 200 OK\n[last_Via:]\n]]></send></scenario>";

fn sipp_files(name: &str, _max: usize) -> Result<Vec<u8>, String> {
    match name {
        "uac.xml" => Ok(UAC.into()),
        "uas.xml" => Ok(UAS.into()),
        name => nothing(name, 0),
    }
}

#[test]
fn two_sipp_files_are_joined_to_one_scenario() {
    let one = |name: &str| {
        let extras = Extras { pause: Duration::from_secs(9), fields: &[] };
        load(name, extras, &sipp_files).unwrap().mixture.parts.remove(0).scenario
    };
    let (uac, uas) = (one("uac.xml"), one("uas.xml"));
    assert!(uac.strict.caller && !uac.strict.callee, "the callee is loadgen's own");
    assert_eq!(
        uac.caller.last(),
        Some(&Step::Wait(super::super::span::Span::Fixed(Duration::from_secs(9))))
    );
    assert!(join(uas.clone(), uac.clone()).is_err());
    let joined = join(uac, uas).unwrap();
    assert!(joined.strict.caller && joined.strict.callee && joined.keeps_messages);
    assert_eq!(joined.marks, ["rtd 1", "rtd x"]);
    let Step::Recv(recv) = &joined.callee[0] else { panic!() };
    assert_eq!(recv.start, Some(1));
    assert!(!joined.caller.contains(&Step::End(Outcome::Success)));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = std::env::temp_dir().join(format!("loadgen-load-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("big.csv");
    std::fs::write(&path, b"0123456789").unwrap();
    let read = disk(&folder.join("a.scenario"));
    assert_eq!(read("big.csv", 10).unwrap(), b"0123456789", "beside the scenario");
    assert!(read("big.csv", 9).unwrap_err().contains("more than the limit of 9 bytes"));
    assert!(read("none.csv", 9).unwrap_err().contains("cannot read none.csv"));
    assert!(read(folder.to_str().unwrap(), 9).unwrap_err().contains("is a folder"));
    std::fs::remove_dir_all(&folder).unwrap();
}
