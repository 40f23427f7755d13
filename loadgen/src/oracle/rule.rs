//! The rules, by name.

/// What the server must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A new request whose CSeq is not above the last of its dialog (RFC 3261 §12.2.1.1).
    CseqNotHigher,
    /// A new request or an attempt with the branch of one before it (§8.1.1.7).
    BranchNotNew,
    /// Call-ID or a tag of a dialog changed (§12.2).
    DialogChanged,
    /// A second final response to a request, that is no 2xx again (§17.2.1).
    FinalTwice,
    /// A provisional response after the final one.
    ProvisionalAfterFinal,
    /// A response to a request that was not sent.
    ResponseForNothing,
    /// An INVITE whose call was released got no final response (§13.3.1, §15.1.2).
    NeverAnswered,
    /// BYE came before the final response to an INVITE that the server had said 1xx to.
    ByeBeforeFinal,
    /// A Route left in a request at its end, or a Route that is not the route set (§12.2.1.1).
    RouteSet,
    /// A request without a Max-Forwards that can be read (§8.1.1.6).
    MaxForwards,
    /// A repeated re-INVITE with another body.
    BodyChanged,
    /// A description with a version lower than the one before (RFC 3264 §8).
    SdpVersionLower,
    /// INVITE or its 2xx without Contact (RFC 3261 §8.1.1.8, §12.1.1).
    ContactMissing,
    /// An ACK whose CSeq is of no INVITE, or of one that is not answered (§13.2.2.4).
    AckForAnother,
    /// A 2xx that was never acknowledged.
    AckMissing,
    /// A CANCEL whose branch or CSeq is not that of an INVITE (§9.1).
    CancelForNothing,
    /// A BYE that nobody asked for.
    ByeUnasked,
    /// An attempt sooner than the delay after its failure.
    TooEarly,
    /// A second INVITE while one waits for its final response on a flow that stands (§14.1).
    AttemptOverlaps,
    /// A new request after BYE was answered.
    AfterBye,
}

impl Rule {
    /// The name in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CseqNotHigher => "cseq_not_higher",
            Self::BranchNotNew => "branch_not_new",
            Self::DialogChanged => "dialog_changed",
            Self::FinalTwice => "final_twice",
            Self::ProvisionalAfterFinal => "provisional_after_final",
            Self::ResponseForNothing => "response_for_nothing",
            Self::NeverAnswered => "never_answered",
            Self::ByeBeforeFinal => "bye_before_final",
            Self::RouteSet => "route_set",
            Self::MaxForwards => "max_forwards",
            Self::BodyChanged => "body_changed",
            Self::SdpVersionLower => "sdp_version_lower",
            Self::ContactMissing => "contact_missing",
            Self::AckForAnother => "ack_for_another",
            Self::AckMissing => "ack_missing",
            Self::CancelForNothing => "cancel_for_nothing",
            Self::ByeUnasked => "bye_unasked",
            Self::TooEarly => "too_early",
            Self::AttemptOverlaps => "attempt_overlaps",
            Self::AfterBye => "after_bye",
        }
    }
}
