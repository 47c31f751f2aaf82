//! How much an interface may send.

use core::time::Duration;

/// So many bytes in each period, as the toolstack's `rate` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many bytes.
    pub bytes: u64,
    /// The period.
    pub period: Duration,
}

impl Rate {
    /// Reads `BYTES,MICROSECONDS`; `None` where there is no limit: `0` of either, or nothing that
    /// can be understood, as the toolstack alone writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (bytes, period) = text.split_once(',')?;
        let (bytes, period) = (bytes.parse().ok()?, period.parse().ok()?);
        (bytes > 0 && period > 0).then_some(Self { bytes, period: Duration::from_micros(period) })
    }
}

/// What is left of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credit {
    rate: Rate,
    /// Below zero is what the last frame cost more than there was.
    left: i64,
    /// When there is more.
    refill: Duration,
}

impl Credit {
    pub(crate) const fn new(rate: Rate) -> Self {
        Self { rate, left: 0, refill: Duration::ZERO }
    }

    /// Takes what a frame costs. The last one may cost more than is left: frames are sent whole.
    pub(crate) fn spend(&mut self, bytes: u16) {
        self.left -= i64::from(bytes);
    }

    /// Until when nothing may be sent, if so.
    pub(crate) fn exhausted_until(&mut self, now: Duration) -> Option<Duration> {
        if now >= self.refill {
            let period = self.rate.period.as_micros().max(1);
            let passed = 1 + (now - self.refill).as_micros() / period;
            let bytes = i64::try_from(self.rate.bytes).unwrap_or(i64::MAX);
            let more = bytes.saturating_mul(i64::try_from(passed).unwrap_or(i64::MAX));
            self.left = self.left.saturating_add(more).min(bytes);
            self.refill = now + self.rate.period;
        }
        (self.left <= 0).then_some(self.refill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_as_libxl_writes_it() {
        let rate = Rate { bytes: 52428, period: Duration::from_micros(50000) };
        assert_eq!(Rate::parse("52428,50000"), Some(rate));
        for none in ["", "0,50000", "52428,0", "52428", "a,b"] {
            assert_eq!(Rate::parse(none), None, "{none:?}");
        }
    }

    #[test]
    fn credit_comes_back_after_its_period() {
        let ms = Duration::from_millis;
        let mut credit = Credit::new(Rate { bytes: 1000, period: ms(50) });
        assert_eq!(credit.exhausted_until(ms(100)), None);
        credit.spend(900);
        assert_eq!(credit.exhausted_until(ms(110)), None, "some is left");
        credit.spend(1500);
        assert_eq!(credit.exhausted_until(ms(120)), Some(ms(150)));
        assert_eq!(credit.exhausted_until(ms(149)), Some(ms(150)));
        assert_eq!(
            credit.exhausted_until(ms(150)),
            Some(ms(200)),
            "1400 were too much for two periods"
        );
        assert_eq!(credit.exhausted_until(ms(200)), None);
    }
}
