//! Memory in huge pages or not.

use super::*;

/// `THP_enabled` of a running server (proc(5)).
fn may_have_huge_pages(world: &World) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
    line.expect("a line about huge pages").trim() == "1"
}

#[test]
fn huge_pages_are_off_unless_they_are_asked_for() {
    let start = |huge_pages: &str| {
        let (address, metrics, callee) = (free_address(), free_address(), free_address());
        let says = Says { delay: 500, device: None, window: 20, more: "" };
        let whole = text(says, address, metrics, callee);
        let whole = Some(whole.replace("cores", &format!("{huge_pages}cores")));
        let server = Server::start(&Setup { callee, address, whole, ..Setup::default() });
        World { caller: Ua::connect(server.address), server, metrics, callee }
    };
    assert!(!may_have_huge_pages(&start("")));
    assert!(!may_have_huge_pages(&start("huge-pages = \"off\"\n")));
    let kernel_has_them = Path::new("/sys/kernel/mm/transparent_hugepage").exists();
    assert_eq!(may_have_huge_pages(&start("huge-pages = \"on\"\n")), kernel_has_them);
}
