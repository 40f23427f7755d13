//! What holds for all bytes, and for all messages of a grammar.

mod message_support;

use holdfast::key::ShardId;
use holdfast::sip::Token;
use holdfast::sip::message::*;
use message_support::{OPTIONS, look_at_everything, read_everything, soup};
use proptest::prelude::*;
use rsip::Param;
use rsip::headers::UntypedHeader;
use rsip::headers::untyped::ToTypedHeader;
use rsip::message::HeadersExt;

/// What `home` must answer.
fn home_by_view(bytes: &[u8]) -> Option<ShardId> {
    let mut head = Head::new();
    let _ = head.read(bytes);
    let view = View::new(bytes, &head);
    let token = if view.is_request() { view.to()?.token() } else { view.via()?.token() };
    Some(token?.shard)
}

/// The parts of a message that we and rsip both read.
#[derive(Clone, Debug)]
struct Parts {
    method: String,
    user: String,
    host: String,
    branch: String,
    from_tag: String,
    to_tag: Option<String>,
    call_id: String,
    cseq: u32,
    status: Option<u16>,
}

fn parts() -> impl Strategy<Value = Parts> {
    let method = prop::sample::select(&["INVITE", "ACK", "BYE", "OPTIONS", "UPDATE", "REGISTER"]);
    (
        method.prop_map(str::to_owned),
        "[a-z0-9]{1,12}",
        "[a-z]{1,8}\\.example\\.com",
        "[a-zA-Z0-9]{1,30}",
        "[a-zA-Z0-9]{1,30}",
        prop::option::of("[a-zA-Z0-9]{1,30}"),
        "[a-zA-Z0-9]{1,30}@[a-z0-9.]{1,12}",
        0..1u32 << 31,
        prop::option::of(100..700u16),
    )
        .prop_map(|(method, user, host, branch, from_tag, to_tag, call_id, cseq, status)| {
            Parts { method, user, host, branch, from_tag, to_tag, call_id, cseq, status }
        })
}

impl Parts {
    /// The message, by our writer.
    fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let uri = format!("sip:{}@{}", self.user, self.host);
        match self.status {
            Some(code) => {
                write::status_line(&mut out, code, write::reason_phrase(code).as_bytes());
            }
            None => write::request_line(&mut out, self.method.as_bytes(), uri.as_bytes()),
        }
        let to_tag = self.to_tag.as_ref().map_or(String::new(), |tag| format!(";tag={tag}"));
        let via = format!("SIP/2.0/TCP {}:5060;branch=z9hG4bK{}", self.host, self.branch);
        write::header(&mut out, "Via", via.as_bytes());
        write::header(&mut out, "Max-Forwards", b"70");
        write::header(&mut out, "From", format!("<{uri}>;tag={}", self.from_tag).as_bytes());
        write::header(&mut out, "To", format!("\"B\" <{uri}>{to_tag}").as_bytes());
        write::header(&mut out, "Call-ID", self.call_id.as_bytes());
        write::line(&mut out, format!("CSeq: {} {}\r\n", self.cseq, self.method).as_bytes());
        write::body(&mut out, b"");
        out
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in soup()) {
        read_everything(&bytes);
    }

    #[test]
    fn a_view_of_bytes_that_its_head_was_not_read_of_does_not_panic(
        one in soup(),
        other in soup(),
    ) {
        let mut head = Head::new();
        let _ = head.read(&one);
        let view = View::new(&other, &head);
        let _ = (view.check(), view.via(), view.to(), view.contact(), view.cseq(), view.body());
        let _ = (view.method(), view.request_uri(), view.reason(), view.headers().count());
        // And a head serves again after anything.
        head.read(OPTIONS.as_bytes()).unwrap();
        look_at_everything(&View::new(OPTIONS.as_bytes(), &head));
    }

    #[test]
    fn home_agrees_with_the_view(bytes in soup()) {
        prop_assert_eq!(home(&bytes), home_by_view(&bytes));
    }

    #[test]
    fn no_prefix_of_a_message_is_a_message(parts in parts(), cut in any::<prop::sample::Index>()) {
        let bytes = parts.write();
        let part = &bytes[..cut.index(bytes.len())];
        prop_assert!(Head::new().read(part).is_err());
        read_everything(part);
        prop_assert_eq!(home(part), home_by_view(part));
    }

    #[test]
    fn what_is_written_is_read_back(parts in parts()) {
        let bytes = parts.write();
        let mut head = Head::new();
        prop_assert_eq!(head.read(&bytes), Ok(()));
        let view = View::new(&bytes, &head);
        prop_assert_eq!(view.check(), Ok(()));
        prop_assert_eq!(view.is_request(), parts.status.is_none());
        prop_assert_eq!(view.status(), parts.status.unwrap_or(0));
        prop_assert_eq!(view.method().as_str(), parts.method.as_str());
        prop_assert_eq!(view.cseq(), Some((parts.cseq, parts.method.as_bytes())));
        prop_assert_eq!(view.call_id(), Some(parts.call_id.as_bytes()));
        prop_assert_eq!(view.from().unwrap().tag, Some(parts.from_tag.as_bytes()));
        prop_assert_eq!(view.to().unwrap().tag, parts.to_tag.as_deref().map(str::as_bytes));
        prop_assert_eq!(view.to().unwrap().uri().unwrap().user, Some(parts.user.as_bytes()));
    }

    #[test]
    fn tags_and_branches_of_ours_lead_home_however_they_are_spelled(
        mut parts in parts(),
        shard in any::<u16>(),
        index in any::<u32>(),
        cookie in any::<u64>(),
        upper in any::<bool>(),
    ) {
        let token = Token { shard: ShardId(shard), index, cookie };
        let text = if upper { token.to_string().to_uppercase() } else { token.to_string() };
        if parts.status.is_some() {
            parts.branch = text;
        } else {
            parts.to_tag = Some(text);
        }
        let text = String::from_utf8(parts.write()).unwrap();
        let folded = text
            .replace("\r\nTo: ", "\r\nt \t:\r\n  ")
            .replace("\r\nVia: ", "\r\nV:\r\n\t")
            .replace(";tag=", "\r\n ; TAG\r\n = ")
            .replace(";branch=", " ;x=\"a;branch=\\\"b\" ; Branch = ");
        prop_assert_eq!(home(text.as_bytes()), Some(ShardId(shard)));
        prop_assert_eq!(home(folded.as_bytes()), Some(ShardId(shard)));
        prop_assert_eq!(home_by_view(folded.as_bytes()), Some(ShardId(shard)));
    }

    #[test]
    fn rsip_reads_the_same_in_what_it_can_read(parts in parts()) {
        let bytes = parts.write();
        let mut head = Head::new();
        head.read(&bytes).unwrap();
        let view = View::new(&bytes, &head);
        let theirs = rsip::SipMessage::try_from(&bytes[..]).unwrap();
        match &theirs {
            rsip::SipMessage::Request(request) => {
                prop_assert!(view.is_request());
                prop_assert_eq!(view.method().as_str(), request.method.to_string());
                let uri = request.uri.to_string();
                prop_assert_eq!(view.request_uri(), uri.as_bytes());
            }
            rsip::SipMessage::Response(response) => {
                prop_assert_eq!(view.status(), response.status_code.code());
            }
        }
        let cseq = theirs.cseq_header().unwrap().clone().typed().unwrap();
        prop_assert_eq!(view.cseq().unwrap().0, cseq.seq);
        prop_assert_eq!(view.method().as_str(), cseq.method.to_string());
        let call_id = theirs.call_id_header().unwrap().value().to_owned();
        prop_assert_eq!(view.call_id().unwrap(), call_id.as_bytes());
        let tag_of = |params: &[Param]| {
            params.iter().find_map(|param| match param {
                Param::Tag(tag) => Some(tag.value().to_owned().into_bytes()),
                _ => None,
            })
        };
        let from = theirs.from_header().unwrap().clone().typed().unwrap();
        prop_assert_eq!(view.from().unwrap().tag.map(<[u8]>::to_vec), tag_of(&from.params));
        let to = theirs.to_header().unwrap().clone().typed().unwrap();
        prop_assert_eq!(view.to().unwrap().tag.map(<[u8]>::to_vec), tag_of(&to.params));
        let via = theirs.via_header().unwrap().clone().typed().unwrap();
        let branch = via.branch().unwrap().value().to_string();
        prop_assert_eq!(view.via().unwrap().branch, Some(branch.as_bytes()));
        prop_assert_eq!(view.via().unwrap().port, Some(5060));
    }
}
