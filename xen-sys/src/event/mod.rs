//! Event channels (xen/include/public/event_channel.h).
//!
//! An event says that something may have happened at a port, and no more: it carries no
//! data, comes at least once, and a freshly bound port begins with one.
//!
//! [`Events`] finds the ports that are pending. A [`Channel`] is an open local port, closed
//! when dropped. The loop that owns both looks like this, interrupts off throughout:
//!
//! ```text
//! while let Some(port) = events.next() { serve whoever owns port }
//! if events.nothing_pending() { open interrupts and halt, in one step }
//! ```

use core::fmt;
use core::mem::offset_of;

use crate::hypercall::{self, Op};
use crate::ids::{DOMID_SELF, DomId, Errno, Port};
use crate::shared_info::SharedInfo;

mod fifo;
mod two_level;

use fifo::Fifo;
use two_level::TwoLevel;

const EVTCHNOP_BIND_INTERDOMAIN: u64 = 0;
const EVTCHNOP_BIND_VIRQ: u64 = 1;
const EVTCHNOP_CLOSE: u64 = 3;
const EVTCHNOP_SEND: u64 = 4;
const EVTCHNOP_STATUS: u64 = 5;
const EVTCHNOP_ALLOC_UNBOUND: u64 = 6;
const EVTCHNOP_UNMASK: u64 = 9;
const EVTCHNOP_SET_PRIORITY: u64 = 13;

#[repr(C)]
struct BindInterdomain {
    remote_dom: u16,
    remote_port: u32,
    local_port: u32,
}

#[repr(C)]
struct BindVirq {
    virq: u32,
    vcpu: u32,
    port: u32,
}

#[repr(C)]
struct AllocUnbound {
    dom: u16,
    remote_dom: u16,
    port: u32,
}

#[repr(C)]
struct StatusOf {
    dom: u16,
    port: u32,
    status: u32,
    vcpu: u32,
    detail: [u32; 2],
}

#[repr(C)]
struct SetPriority {
    port: u32,
    priority: u32,
}

const _: () = assert!(size_of::<BindInterdomain>() == 12);
const _: () = assert!(size_of::<BindVirq>() == 12 && size_of::<AllocUnbound>() == 8);
const _: () = assert!(size_of::<StatusOf>() == 24 && offset_of!(StatusOf, detail) == 16);
const _: () = assert!(size_of::<SetPriority>() == 8);

/// Runs `EVTCHNOP_*`.
///
/// # Safety
/// `T` must be the structure that `command` names, and the effect sound for the caller.
unsafe fn operate<T>(command: u64, arg: &mut T) -> Result<u64, Errno> {
    // SAFETY: the caller's.
    unsafe { hypercall::command(Op::EventChannel, command, arg) }
}

/// A virtual interrupt, `VIRQ_*` of xen/include/public/xen.h, as far as a guest can use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Virq {
    /// The time given to [`crate::clock::set_timer`] has come.
    Timer = 0,
    /// Somebody asks for diagnostics.
    Debug = 1,
    /// A domain changed its state; for the domain Xen was told to send it to.
    DomExc = 3,
}

/// What is at the other end of a port, `EVTCHNSTAT_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The port is not open.
    Closed,
    /// It waits for this domain to bind; a peer that closed leaves its end like this too.
    Unbound(DomId),
    /// It is connected to a port of another domain, or of ours.
    Interdomain(DomId, Port),
    /// It is a virtual interrupt of this number.
    Virq(u32),
    /// A kind that only other domains use, or one newer than this header.
    Other(u32),
}

/// An open local port; closed when dropped.
///
/// Having one tells that the port is ours and stays so. It does not tell that anyone is at
/// the other end: a peer that dies or closes leaves without an event.
#[derive(Debug)]
pub struct Channel(Port);

impl Channel {
    /// The local port's number, as [`Events::next`] gives it.
    #[must_use]
    pub const fn port(&self) -> Port {
        self.0
    }

    /// Sends an event to the other end. Without anyone there it goes nowhere, silently.
    ///
    /// Notify after work and never without: Linux slows a peer down whose events bring none.
    pub fn notify(&self) {
        // The port is open, so the only refusals are of kinds that cannot be sent to.
        let _ = send(self.0);
    }

    /// What is at the other end.
    ///
    /// # Errors
    /// As Xen refuses; it has no reason to.
    pub fn status(&self) -> Result<Status, Errno> {
        status(self.0)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let mut port = self.0;
        // SAFETY: `struct evtchn_close` is the port, which is ours.
        let closed = unsafe { operate(EVTCHNOP_CLOSE, &mut port) };
        if let Err(error) = closed {
            log::error!("closing {port} failed: {error}");
        }
    }
}

/// Sends an event from a local port. Takes no lock and needs no [`Events`], so that a
/// console can notify from wherever a line is logged.
///
/// # Errors
/// `EINVAL` if the port is not open.
pub fn send(port: Port) -> Result<(), Errno> {
    let mut port = port;
    // SAFETY: `struct evtchn_send` is the port; an event is the whole effect.
    unsafe { operate(EVTCHNOP_SEND, &mut port) }.map(drop)
}

/// What is at the other end of a local port.
///
/// # Errors
/// `EINVAL` for a port that no domain could have.
pub fn status(port: Port) -> Result<Status, Errno> {
    let mut of = StatusOf { dom: DOMID_SELF, port: port.0, status: 0, vcpu: 0, detail: [0; 2] };
    // SAFETY: `struct evtchn_status`, which Xen fills.
    unsafe { operate(EVTCHNOP_STATUS, &mut of) }?;
    let [first, second] = of.detail;
    // The union's members begin with a u16 domain id, or a u32 number.
    let domain = DomId::new((first & 0xffff) as u16);
    Ok(match (of.status, domain) {
        (0, _) => Status::Closed,
        (1, Some(domain)) => Status::Unbound(domain),
        (2, Some(domain)) => Status::Interdomain(domain, Port(second)),
        (4, _) => Status::Virq(first),
        (other, _) => Status::Other(other),
    })
}

/// This domain's id, found by a port that is unbound to ourselves: for a Xen that does not
/// tell it by CPUID.
///
/// # Errors
/// As Xen refuses: `ENOSPC` when no port is free.
pub fn own_domid() -> Result<DomId, Errno> {
    let channel = allocate(DOMID_SELF)?;
    match channel.status()? {
        Status::Unbound(domain) => Ok(domain),
        _ => Err(Errno::EINVAL),
    }
}

fn allocate(remote_dom: u16) -> Result<Channel, Errno> {
    let mut arg = AllocUnbound { dom: DOMID_SELF, remote_dom, port: 0 };
    // SAFETY: `struct evtchn_alloc_unbound`.
    unsafe { operate(EVTCHNOP_ALLOC_UNBOUND, &mut arg) }?;
    Ok(Channel(Port(arg.port)))
}

/// How urgent a port is: 0 is served first, 15 last. Means nothing to the 2-level ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(u8);

impl Priority {
    /// Served before all others.
    pub const HIGHEST: Self = Self(0);
    /// What a port has that nobody set.
    pub const DEFAULT: Self = Self(7);
    /// Served after all others.
    pub const LOWEST: Self = Self(15);

    /// The priority `level`, the lowest for anything beyond.
    #[must_use]
    pub const fn new(level: u8) -> Self {
        if level < 15 { Self(level) } else { Self::LOWEST }
    }
}

/// How Xen tells which ports are pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// A bit per port, 4096 ports.
    TwoLevel,
    /// A queue per priority, 131,072 ports.
    Fifo,
}

#[expect(clippy::large_enum_variant, reason = "there is one of it in a domain")]
enum Pending {
    TwoLevel(TwoLevel),
    Fifo(Fifo),
}

/// The ports of this domain, and which of them are pending. One per domain.
pub struct Events {
    shared: SharedInfo,
    pending: Pending,
}

impl Events {
    /// Opens the ABI of choice. FIFO must be opened before any port is bound: what was
    /// pending is lost with it, and nothing leads back to 2-level.
    ///
    /// # Errors
    /// For FIFO: `ENOSYS` where this Xen has none, `ENOMEM` without memory for its pages.
    pub fn open(abi: Abi, shared: SharedInfo) -> Result<Self, Errno> {
        let pending = match abi {
            Abi::TwoLevel => Pending::TwoLevel(TwoLevel::new()),
            Abi::Fifo => Pending::Fifo(Fifo::open()?),
        };
        Ok(Self { shared, pending })
    }

    /// FIFO where Xen has it, 2-level else.
    #[must_use]
    pub fn best(shared: SharedInfo) -> Self {
        let fifo = Fifo::open().map(Pending::Fifo);
        let pending = fifo.unwrap_or_else(|_| Pending::TwoLevel(TwoLevel::new()));
        Self { shared, pending }
    }

    /// Which ABI is in use.
    #[must_use]
    pub const fn abi(&self) -> Abi {
        match self.pending {
            Pending::TwoLevel(_) => Abi::TwoLevel,
            Pending::Fifo(_) => Abi::Fifo,
        }
    }

    /// Connects to `remote_port` of `remote`, which must wait for us. The new port is pending
    /// at once.
    ///
    /// # Errors
    /// `EINVAL` if the remote port does not wait for us, `ESRCH` without such a domain,
    /// `ENOSPC` when no port is free.
    pub fn bind_interdomain(&mut self, remote: DomId, port: Port) -> Result<Channel, Errno> {
        let mut arg =
            BindInterdomain { remote_dom: remote.raw(), remote_port: port.0, local_port: 0 };
        // SAFETY: `struct evtchn_bind_interdomain`.
        unsafe { operate(EVTCHNOP_BIND_INTERDOMAIN, &mut arg) }?;
        self.ready(Channel(Port(arg.local_port)))
    }

    /// Opens a port that waits for `remote` to bind to it.
    ///
    /// # Errors
    /// `ESRCH` without such a domain, `ENOSPC` when no port is free.
    pub fn alloc_unbound(&mut self, remote: DomId) -> Result<Channel, Errno> {
        let channel = allocate(remote.raw())?;
        self.ready(channel)
    }

    /// Opens a port for a virtual interrupt on the first vCPU.
    ///
    /// # Errors
    /// `EEXIST` if it has one, `EBUSY` if it is somebody else's, `ENOSPC` when no port is
    /// free.
    pub fn bind_virq(&mut self, virq: Virq) -> Result<Channel, Errno> {
        let mut arg = BindVirq { virq: virq as u32, vcpu: 0, port: 0 };
        // SAFETY: `struct evtchn_bind_virq`.
        unsafe { operate(EVTCHNOP_BIND_VIRQ, &mut arg) }?;
        self.ready(Channel(Port(arg.port)))
    }

    /// Takes over a port that was opened for us, as the domain builder does for the console.
    ///
    /// # Errors
    /// `EINVAL` if the port is not open.
    pub fn adopt(&mut self, port: Port) -> Result<Channel, Errno> {
        if status(port)? == Status::Closed {
            return Err(Errno::EINVAL);
        }
        self.ready(Channel(port))
    }

    /// Makes a port that was just opened able to become pending.
    fn ready(&mut self, channel: Channel) -> Result<Channel, Errno> {
        if let Pending::Fifo(fifo) = &mut self.pending {
            fifo.cover(channel.port())?;
        }
        self.unmask(channel.port());
        Ok(channel)
    }

    /// Keeps a port's events back; they are remembered.
    pub fn mask(&mut self, port: Port) {
        match &self.pending {
            Pending::TwoLevel(_) => two_level::mask(self.shared.page(), port),
            Pending::Fifo(fifo) => fifo.mask(port),
        }
    }

    /// Lets a port's events through, and the one that was kept back.
    pub fn unmask(&mut self, port: Port) {
        match &self.pending {
            Pending::TwoLevel(_) => two_level::unmask(self.shared.page(), port),
            Pending::Fifo(fifo) => {
                if !fifo.unmask(port) {
                    // Only Xen can link a pending port into its queue.
                    let mut port = port;
                    // SAFETY: `struct evtchn_unmask` is the port.
                    let _ = unsafe { operate(EVTCHNOP_UNMASK, &mut port) };
                }
            }
        }
    }

    /// Sets how urgent a port is from its next event on. Means nothing to the 2-level ABI.
    ///
    /// # Errors
    /// `EINVAL` if the port is not open.
    pub fn set_priority(&mut self, channel: &Channel, priority: Priority) -> Result<(), Errno> {
        if self.abi() == Abi::TwoLevel {
            return Ok(());
        }
        let mut arg = SetPriority { port: channel.0.0, priority: priority.0.into() };
        // SAFETY: `struct evtchn_set_priority`.
        unsafe { operate(EVTCHNOP_SET_PRIORITY, &mut arg) }.map(drop)
    }

    /// Takes the next pending port, whose event counts as seen from here on.
    ///
    /// With FIFO the most urgent first, then the longest pending. With 2-level in rounds: a
    /// port comes once a round, so one that is always pending keeps no other waiting.
    #[expect(clippy::should_implement_trait, reason = "None is no end: it may be Some again")]
    pub fn next(&mut self) -> Option<Port> {
        match &mut self.pending {
            Pending::TwoLevel(two_level) => two_level.next(self.shared.page()),
            Pending::Fifo(fifo) => fifo.next(&self.shared.page().vcpu().upcall_pending),
        }
    }

    /// Whether there is nothing for [`next`](Self::next) to find. With interrupts off this
    /// stays true until they are opened; an event in between then interrupts at once.
    #[must_use]
    pub fn nothing_pending(&self) -> bool {
        match &self.pending {
            Pending::TwoLevel(two_level) => two_level.nothing_pending(self.shared.page()),
            Pending::Fifo(fifo) => fifo.nothing_pending(),
        }
    }

    /// How often a queue was found in a state that only a fault of Xen's explains.
    #[must_use]
    pub const fn faults(&self) -> u64 {
        match &self.pending {
            Pending::TwoLevel(_) => 0,
            Pending::Fifo(fifo) => fifo.faults(),
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events({:?}, {} faults)", self.abi(), self.faults())
    }
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::hypercall::fake;

    /// The structure that the command at hand names.
    fn at<'a, T>(arg: u64) -> &'a mut T {
        // SAFETY: `operate` passes a live one for the length of the call.
        unsafe { &mut *(arg as *mut T) }
    }

    /// A Xen with one answer per command, and a note of every port that was closed.
    fn xen(statuses: [u32; 4]) -> Rc<RefCell<Vec<u32>>> {
        let closed = Rc::new(RefCell::new(Vec::new()));
        let log = closed.clone();
        fake::install(move |op, [command, arg, _]| {
            assert_eq!(op, Op::EventChannel);
            match command {
                EVTCHNOP_BIND_INTERDOMAIN => at::<BindInterdomain>(arg).local_port = 70,
                EVTCHNOP_BIND_VIRQ => at::<BindVirq>(arg).port = 71,
                EVTCHNOP_ALLOC_UNBOUND => at::<AllocUnbound>(arg).port = 72,
                EVTCHNOP_CLOSE => log.borrow_mut().push(*at::<u32>(arg)),
                EVTCHNOP_STATUS => {
                    let [status, first, second, _] = statuses;
                    let of = at::<StatusOf>(arg);
                    (of.status, of.detail) = (status, [first, second]);
                }
                _ => return -38,
            }
            0
        });
        closed
    }

    #[test]
    fn a_dropped_channel_is_closed() {
        let closed = xen([0; 4]);
        let mut events = Events::best(SharedInfo::fake());
        assert_eq!(events.abi(), Abi::TwoLevel, "this Xen has no FIFO");
        let dom = DomId::new(5).unwrap();
        let peer = events.bind_interdomain(dom, Port(3)).unwrap();
        let timer = events.bind_virq(Virq::Timer).unwrap();
        let open = events.alloc_unbound(dom).unwrap();
        assert_eq!([peer.port(), timer.port(), open.port()], [Port(70), Port(71), Port(72)]);
        assert!(closed.borrow().is_empty());
        drop((peer, timer, open));
        assert_eq!(*closed.borrow(), [70, 71, 72]);
    }

    #[test]
    fn own_domid_is_whom_our_port_waits_for() {
        let closed = xen([1, 0xabcd_0007, 0, 0]);
        assert_eq!(own_domid().map(DomId::raw), Ok(7));
        assert_eq!(*closed.borrow(), [72], "the port is closed again");
    }

    #[test]
    fn a_closed_port_is_not_adopted() {
        let closed = xen([0; 4]);
        let mut events = Events::best(SharedInfo::fake());
        assert_eq!(events.adopt(Port(1)).map(|_| ()), Err(Errno::EINVAL));
        assert!(closed.borrow().is_empty(), "what was never ours is not closed");
    }

    #[test]
    fn a_status_names_the_other_end() {
        xen([2, 5, 33, 0]);
        let dom = DomId::new(5).unwrap();
        assert_eq!(status(Port(1)), Ok(Status::Interdomain(dom, Port(33))));
        xen([4, 3, 0, 0]);
        assert_eq!(status(Port(1)), Ok(Status::Virq(3)));
        xen([1, 0x7ff0, 0, 0]);
        assert_eq!(status(Port(1)), Ok(Status::Other(1)), "a wildcard is no domain");
    }
}
