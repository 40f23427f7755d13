//! Faults that strike in the kernel, on the addresses of this run's own parties.

use std::net::SocketAddrV4;
use std::time::Instant;

use crate::driver::Net;
use crate::net::Side;
use crate::net::kernel::{Kernel, Reach};
use crate::plan::{Strike, What};

/// What a worker changed in the kernel; made at the first strike, undone with it.
#[derive(Default)]
pub(crate) struct KernelFaults {
    kernel: Option<Kernel>,
    /// Parties whose packets are dropped.
    dropped: Vec<(Side, u32)>,
}

/// What connects a party with the server: those it opens, or those it accepts.
fn reach(net: &Net, side: Side, party: u32) -> Reach {
    let own = &net.parties[side as usize][party as usize];
    match side {
        Side::Caller => Reach::Connecting { from: own.ip, to: net.server },
        Side::Callee => Reach::Listening(SocketAddrV4::new(own.ip, own.port)),
    }
}

impl KernelFaults {
    /// The instant just before the fault, when it struck a connection.
    ///
    /// # Errors
    /// Not root, no such tool, or a kernel that cannot do it.
    pub(crate) fn strike(&mut self, net: &Net, strike: &Strike) -> Result<Option<Instant>, String> {
        let reach = reach(net, strike.side, strike.party);
        let kernel = match &mut self.kernel {
            Some(kernel) => kernel,
            none => none.insert(Kernel::new()?),
        };
        match strike.what {
            What::KernelDrop => {
                self.dropped.push((strike.side, strike.party));
                kernel.drop_packets(reach).map(Some)
            }
            What::KernelKill => {
                let (killed, at) = kernel.kill(reach)?;
                Ok((killed > 0).then_some(at))
            }
            What::KernelDelay { delay } => kernel.delay(reach, delay).map(|_| None),
            _ => Ok(None),
        }
    }

    /// Lets a party's packets pass again, if they were dropped.
    ///
    /// # Errors
    /// What the tool says.
    pub(crate) fn lift(&mut self, net: &Net, side: Side, party: u32) -> Result<(), String> {
        let Some(at) = self.dropped.iter().position(|dropped| *dropped == (side, party)) else {
            return Ok(());
        };
        self.dropped.swap_remove(at);
        match &mut self.kernel {
            Some(kernel) => kernel.restore(reach(net, side, party)),
            None => Ok(()),
        }
    }
}
