//! Certificates of ours that peers will soon refuse.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::time::Time;

use super::config::Config;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long before its end a certificate is warned of.
const WARN_BEFORE: Duration = Duration::from_secs(30 * DAY.as_secs());
/// How often a server that runs looks: the days that are left are told each day.
pub(super) const LOOK_EVERY: Duration = DAY;

/// What is to be said of the certificates of `[tls]`, a line for each that is not good for long, at `now`.
pub fn warnings(config: &Config, now: SystemTime) -> Vec<String> {
    let certificates = config.tls.identities.iter().map(|identity| &*identity.certificate);
    certificates.filter_map(|path| warning(path, now)).collect()
}

/// Nothing for a file that cannot be read: who loads it says so.
fn warning(path: &Path, now: SystemTime) -> Option<String> {
    // The first is ours; the rest of the chain is its authorities', and renewed with it.
    let der = CertificateDer::from_pem_file(path).ok()?;
    let certificate = Certificate::from_der(&der).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let now = now.duration_since(UNIX_EPOCH).ok()?;
    let text = told(validity.not_before, validity.not_after, now)?;
    Some(format!("certificate in [tls]: {} {text}", path.display()))
}

/// `now` is since 1970-01-01, UTC, as certificates count.
fn told(not_before: Time, not_after: Time, now: Duration) -> Option<String> {
    if not_before.to_unix_duration() > now {
        return Some(format!("is not valid before {not_before}: until then peers refuse it"));
    }
    let Some(left) = not_after.to_unix_duration().checked_sub(now) else {
        return Some(format!("has expired on {not_after}: peers refuse it"));
    };
    let days = left.as_secs() / DAY.as_secs();
    let soon = left < WARN_BEFORE;
    soon.then(|| format!("expires on {not_after}, in {days} days: peers will refuse it then"))
}

#[cfg(test)]
mod tests {
    use x509_cert::der::asn1::UtcTime;

    use super::*;

    #[test]
    fn a_certificate_is_warned_of_before_its_time_in_its_last_month_and_after_it() {
        let at = |days| Time::UtcTime(UtcTime::from_unix_duration(DAY * days).unwrap());
        let told = |now| told(at(100), at(200), now);
        let second = Duration::from_secs(1);
        assert!(told(DAY * 99).unwrap().contains("not valid before"));
        assert_eq!(told(DAY * 100), None);
        assert_eq!(told(DAY * 170), None);
        assert!(told(DAY * 170 + second).unwrap().contains("in 29 days"));
        assert!(told(DAY * 200).unwrap().contains("in 0 days"));
        assert!(told(DAY * 200 + second).unwrap().contains("has expired"));
    }
}
