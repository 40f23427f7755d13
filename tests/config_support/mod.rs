//! A configuration read from text, or what is wrong with it.

use holdfast::control::config::Config;

/// The configuration, which has no error.
pub(crate) fn parse(text: &str) -> Config {
    Config::parse("holdfast.toml", text).unwrap_or_else(|errors| panic!("{errors}\nin:\n{text}"))
}

/// Errors, one a line, without the name of the file.
pub(crate) fn errors(text: &str) -> String {
    let errors = Config::parse("holdfast.toml", text).expect_err("it is wrong");
    errors.to_string().replace("holdfast.toml:", "")
}
