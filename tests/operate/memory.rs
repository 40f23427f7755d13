//! Memory in huge pages or not.

use super::*;

/// `THP_enabled` (proc(5)) of a server whose `[server]` says this, too.
fn may_have_huge_pages(more: &str) -> bool {
    let (address, metrics, callee) = (free_address(), free_address(), free_address());
    let says = Says { delay: 500, device: None, window: 20, more: "" };
    let whole = text(says, address, metrics, callee).replace("cores", &format!("{more}cores"));
    let server = Server::start(&Setup { callee, address, whole: Some(whole), ..Setup::default() });
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
    line.expect("a line about huge pages").trim() == "1"
}

#[test]
fn huge_pages_are_off_unless_they_are_asked_for() {
    assert!(!may_have_huge_pages(""));
    assert!(!may_have_huge_pages("huge-pages = \"off\"\n"));
    let kernel_has_them = Path::new("/sys/kernel/mm/transparent_hugepage").exists();
    assert_eq!(may_have_huge_pages("huge-pages = \"on\"\n"), kernel_has_them);
}
