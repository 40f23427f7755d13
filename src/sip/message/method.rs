//! Request methods.

macro_rules! methods {
    ($($(#[$doc:meta])* $method:ident $text:literal)*) => {
        /// What a request asks for. Methods are case-sensitive (RFC 3261 §7.1).
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum Method {
            $($(#[$doc])* $method,)*
            /// Any other, among them known names in another case.
            #[default]
            Other,
        }

        impl Method {
            /// All of them, in the order of their numbers: `ALL[method as usize] == method`.
            pub const ALL: &'static [Self] = &[$(Self::$method,)* Self::Other];

            /// The method that is written as `text`.
            pub fn parse(text: &[u8]) -> Self {
                $(if text == $text.as_bytes() {
                    return Self::$method;
                })*
                Self::Other
            }

            /// How the method is written; empty for [`Method::Other`].
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$method => $text,)*
                    Self::Other => "",
                }
            }
        }
    };
}

methods! {
    /// Begins or changes a session (RFC 3261 §13, §14).
    Invite "INVITE"
    /// Acknowledges a final response to INVITE (RFC 3261 §13.2.2.4, §17.1.1.3).
    Ack "ACK"
    /// Ends a session (RFC 3261 §15).
    Bye "BYE"
    /// Gives up a pending request (RFC 3261 §9).
    Cancel "CANCEL"
    /// Changes a session without a new INVITE (RFC 3311).
    Update "UPDATE"
    /// Application data within a dialog (RFC 6086).
    Info "INFO"
    /// Asks for a request to a third party (RFC 3515).
    Refer "REFER"
    /// Reports an event (RFC 6665).
    Notify "NOTIFY"
    /// A page-mode text (RFC 3428).
    Message "MESSAGE"
    /// Asks for capabilities (RFC 3261 §11).
    Options "OPTIONS"
    /// Acknowledges a reliable provisional response (RFC 3262).
    Prack "PRACK"
    /// Asks for events (RFC 6665).
    Subscribe "SUBSCRIBE"
    /// Uploads event state (RFC 3903).
    Publish "PUBLISH"
    /// Binds an address of record (RFC 3261 §10).
    Register "REGISTER"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_case_sensitive() {
        assert_eq!(Method::parse(b"INVITE"), Method::Invite);
        assert_eq!(Method::parse(b"invite"), Method::Other);
        assert_eq!(Method::parse(b"INVITES"), Method::Other);
        assert_eq!(Method::parse(b""), Method::Other);
    }
}
