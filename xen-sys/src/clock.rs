//! Time as Xen gives it (xen/include/public/xen.h, `struct vcpu_time_info`).

use core::cell::Cell;
use core::sync::atomic::{Ordering, fence};
use core::time::Duration;

use crate::hypercall::{self, Op};
use crate::ids::Errno;
use crate::shared_info::{SharedInfo, VcpuTime};

/// Nanoseconds since the host booted; never goes back within one domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SystemTime(pub u64);

impl SystemTime {
    /// The time `later` after this one; the end of time if that would be beyond it.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero if it is yet to come.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// How often a snapshot is tried while Xen is writing. Xen writes while this vCPU does not
/// run, so a second try is rare; one that never succeeds must not hang the domain.
const TRIES: usize = 1000;

/// The clock of the vCPU it was made on.
pub struct Clock {
    shared: SharedInfo,
    /// The last time told. The hardware's counter may differ between the host's CPUs, so the
    /// raw reading may go back by some nanoseconds.
    last: Cell<SystemTime>,
}

/// One consistent reading of `struct vcpu_time_info`.
#[derive(Clone, Copy)]
struct Snapshot {
    tsc_timestamp: u64,
    system_time: u64,
    mul: u32,
    shift: i8,
}

impl Clock {
    /// A clock that reads `shared`.
    #[must_use]
    pub const fn new(shared: SharedInfo) -> Self {
        Self { shared, last: Cell::new(SystemTime(0)) }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.at(counter())
    }

    /// The time when Xen last told it: a second ago or so. It is read from memory, without the
    /// hardware's counter, which Xen has to emulate on some hosts.
    #[must_use]
    pub fn lately(&self) -> SystemTime {
        let told = Snapshot::of(&self.shared.page().vcpu().time);
        told.map_or(SystemTime(0), |time| SystemTime(time.system_time))
    }

    /// How long ago this vCPU's time-stamp counter stood at `reading`; zero if it is yet to.
    #[must_use]
    pub fn since_counter(&self, reading: u64) -> Duration {
        self.between(reading, counter())
    }

    fn between(&self, earlier: u64, later: u64) -> Duration {
        let scale = Snapshot::of(&self.shared.page().vcpu().time);
        let time = scale.map(|time| Snapshot { tsc_timestamp: earlier, system_time: 0, ..time });
        Duration::from_nanos(time.map_or(0, |time| time.at(later).0))
    }

    /// The wall clock: time since 1970-01-01 UTC, or `None` while Xen has not filled it in.
    #[must_use]
    pub fn wall(&self) -> Option<Duration> {
        let page = self.shared.page();
        let boot = stable(&page.wc_version, || {
            let low = u64::from(page.wc_sec.load(Ordering::Relaxed));
            let high = u64::from(page.wc_sec_hi.load(Ordering::Relaxed));
            Duration::new(high << 32 | low, 0)
                .saturating_add(Duration::from_nanos(page.wc_nsec.load(Ordering::Relaxed).into()))
        })?;
        (!boot.is_zero()).then(|| boot.saturating_add(Duration::from_nanos(self.now().0)))
    }

    fn at(&self, counter: u64) -> SystemTime {
        let raw = Snapshot::of(&self.shared.page().vcpu().time).map(|time| time.at(counter));
        let now = raw.unwrap_or_default().max(self.last.get());
        self.last.set(now);
        now
    }
}

impl Snapshot {
    fn of(time: &VcpuTime) -> Option<Self> {
        stable(&time.version, || Self {
            tsc_timestamp: time.tsc_timestamp.load(Ordering::Relaxed),
            system_time: time.system_time.load(Ordering::Relaxed),
            mul: time.tsc_to_system_mul.load(Ordering::Relaxed),
            shift: time.tsc_shift.load(Ordering::Relaxed),
        })
    }

    /// What the time is when the counter stands at `counter`.
    fn at(self, counter: u64) -> SystemTime {
        // Both wrap: Xen offsets a guest's counter, so that the timestamp may lie before its
        // zero. A counter behind the timestamp belongs to a CPU that lags: no time has passed.
        let ticks = counter.wrapping_sub(self.tsc_timestamp).cast_signed().max(0).cast_unsigned();
        let by = u32::from(self.shift.unsigned_abs());
        let shifted = if self.shift < 0 {
            u128::from(ticks.checked_shr(by).unwrap_or(0))
        } else {
            u128::from(ticks).checked_shl(by.min(63)).unwrap_or(0)
        };
        let passed = ((shifted & u128::from(u64::MAX)) * u128::from(self.mul)) >> 32;
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        SystemTime(self.system_time.saturating_add(passed))
    }
}

/// Reads what `version` guards; `None` if Xen was seen writing every time.
fn stable<T>(version: &core::sync::atomic::AtomicU32, read: impl Fn() -> T) -> Option<T> {
    (0..TRIES).find_map(|_| {
        let before = version.load(Ordering::Acquire);
        let value = read();
        // The fields must have been read before the version is looked at again.
        fence(Ordering::Acquire);
        let after = version.load(Ordering::Relaxed);
        (before == after && before & 1 == 0).then_some(value)
    })
}

/// The time-stamp counter, not read ahead of earlier instructions.
fn counter() -> u64 {
    // SAFETY: SSE2 is part of every 64-bit CPU, and Xen never traps these two fatally.
    unsafe { core::arch::x86_64::_mm_lfence() };
    // SAFETY: as above.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Has the timer event come at `deadline`, once, in place of any earlier request; `None`
/// cancels. The event is [`crate::event::Virq::Timer`].
///
/// # Errors
/// As Xen refuses; it has no reason to.
pub fn set_timer(deadline: Option<SystemTime>) -> Result<(), Errno> {
    // Zero cancels; no deadline of this host lies at zero.
    let at = deadline.map_or(0, |at| at.0.max(1));
    // SAFETY: an event is the whole effect.
    unsafe { hypercall::call(Op::SetTimer, [at, 0, 0]) }.map(drop)
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU32;

    use proptest::prelude::*;

    use super::*;

    fn set(shared: SharedInfo, timestamp: u64, system: u64, mul: u32, shift: i8) {
        let time = &shared.page().vcpu().time;
        time.version.fetch_add(2, Ordering::Relaxed);
        time.tsc_timestamp.store(timestamp, Ordering::Relaxed);
        time.system_time.store(system, Ordering::Relaxed);
        time.tsc_to_system_mul.store(mul, Ordering::Relaxed);
        time.tsc_shift.store(shift, Ordering::Relaxed);
    }

    #[test]
    fn time_passes_between_two_readings_of_the_counter_whenever_xen_looked_at_it() {
        let shared = SharedInfo::fake();
        let clock = Clock::new(shared);
        // 2.596 GHz; Xen looked long after both readings.
        set(shared, 1 << 40, 5_000_000_000, 0xc537_51f8, -1);
        let second = clock.between(7_000, 7_000 + 2_596_000_000);
        assert!(second.abs_diff(Duration::from_secs(1)) < Duration::from_millis(1), "{second:?}");
        assert_eq!(clock.between(7_000, 6_000), Duration::ZERO, "a reading that is yet to come");
    }

    #[test]
    fn a_counter_of_2_6_ghz_makes_seconds() {
        let shared = SharedInfo::fake();
        let clock = Clock::new(shared);
        // As seen under Xen 4.17: 2.596 GHz.
        set(shared, 1_000, 5_000_000_000, 0xc537_51f8, -1);
        assert_eq!(clock.at(1_000), SystemTime(5_000_000_000));
        let second = clock.at(1_000 + 2_596_000_000).since(SystemTime(5_000_000_000));
        assert!(second.abs_diff(Duration::from_secs(1)) < Duration::from_millis(1), "{second:?}");
    }

    #[test]
    fn a_timestamp_before_the_counters_zero_is_no_future() {
        let shared = SharedInfo::fake();
        // As seen in a dom0 under Xen 4.17, 2.0 GHz.
        set(shared, 18_446_744_073_601_222_483, 1_889_115_196, 4_294_965_148, -1);
        let passed = Clock::new(shared).at(408_288_994).since(SystemTime(1_889_115_196));
        assert!(
            passed.abs_diff(Duration::from_micros(258_309)) < Duration::from_micros(1),
            "{passed:?}"
        );
    }

    #[test]
    fn time_never_goes_back() {
        let shared = SharedInfo::fake();
        let clock = Clock::new(shared);
        set(shared, 0, 1_000, 1 << 31, 1);
        assert_eq!(clock.at(500), SystemTime(1_500));
        set(shared, 0, 900, 1 << 31, 1);
        assert_eq!(clock.at(500), SystemTime(1_500), "a lagging CPU's reading is held back");
        assert_eq!(clock.at(700), SystemTime(1_600));
    }

    #[test]
    fn a_torn_version_is_never_believed() {
        let shared = SharedInfo::fake();
        let clock = Clock::new(shared);
        set(shared, 0, 7_000, 0, 0);
        assert_eq!(clock.at(0), SystemTime(7_000));
        shared.page().vcpu().time.version.fetch_add(1, Ordering::Relaxed);
        shared.page().vcpu().time.system_time.store(9_000, Ordering::Relaxed);
        assert_eq!(clock.at(0), SystemTime(7_000), "Xen is writing: the last time stands");
    }

    #[test]
    fn a_version_that_changes_between_is_read_again() {
        let version = AtomicU32::new(0);
        let reads = Cell::new(0);
        let value = stable(&version, || {
            reads.set(reads.get() + 1);
            if reads.get() < 3 {
                version.fetch_add(2, Ordering::Relaxed);
            }
            reads.get()
        });
        assert_eq!(value, Some(3), "two readings were torn, the third was not");
        let never = stable(&version, || version.fetch_add(2, Ordering::Relaxed));
        assert_eq!(never, None, "a version that never rests ends in an answer, not a hang");
    }

    #[test]
    fn the_wall_clock_is_unknown_until_xen_fills_it_in() {
        let shared = SharedInfo::fake();
        let clock = Clock::new(shared);
        set(shared, 0, 2_000_000_000, 0, 0);
        assert_eq!(clock.wall(), None);
        shared.page().wc_sec.store(1_700_000_000, Ordering::Relaxed);
        shared.page().wc_nsec.store(500, Ordering::Relaxed);
        assert_eq!(clock.wall(), Some(Duration::new(1_700_000_002, 500)));
        shared.page().wc_nsec.store(u32::MAX, Ordering::Relaxed);
        assert!(clock.wall().is_some(), "nonsense from outside is no panic");
    }

    proptest! {
        #[test]
        fn any_fields_make_some_time(
            timestamp: u64, system: u64, mul: u32, shift: i8, counter: u64,
        ) {
            let time = Snapshot { tsc_timestamp: timestamp, system_time: system, mul, shift };
            prop_assert!(time.at(counter) >= SystemTime(system));
        }
    }
}
