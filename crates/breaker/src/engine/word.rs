//! What every call must know of a breaker, in one word.

use portcullis_core::State;

use crate::Mode;

/// Generation, mode, phase and whether the ramp is on, packed so that one load gives a consistent
/// view of them. Zero but for the generation means: closed, automatic, no ramp, which is what the
/// call path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u64);

/// Where an automatic breaker is in its cycle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Closed,
    Open,
    HalfOpen,
}

const PHASE: u64 = 0b11;
const MODE_SHIFT: u32 = 2;
const MODE: u64 = 0b11 << MODE_SHIFT;
const RAMP: u64 = 1 << 4;
const GENERATION_SHIFT: u32 = 8;
const FLAGS: u64 = (1 << GENERATION_SHIFT) - 1;

// ===== impl Word =====

impl Word {
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// The first generation is 1: a permit of generation 0 is never counted.
    pub(super) fn first(mode: Mode) -> Self {
        Self(1 << GENERATION_SHIFT).with_mode(mode)
    }

    /// Whether every call is admitted and nothing else needs to be looked at.
    pub(super) const fn is_plainly_closed(self) -> bool {
        self.0 & FLAGS == 0
    }

    pub(super) const fn generation(self) -> u64 {
        self.0 >> GENERATION_SHIFT
    }

    pub(super) const fn next_generation(self) -> Self {
        Self(self.0 + (1 << GENERATION_SHIFT))
    }

    pub(super) const fn phase(self) -> Phase {
        match self.0 & PHASE {
            0 => Phase::Closed,
            1 => Phase::Open,
            _ => Phase::HalfOpen,
        }
    }

    pub(super) const fn with_phase(self, phase: Phase) -> Self {
        Self(self.0 & !(PHASE | RAMP) | phase as u64)
    }

    pub(super) const fn mode(self) -> Mode {
        match (self.0 & MODE) >> MODE_SHIFT {
            0 => Mode::Automatic,
            1 => Mode::ForcedOpen,
            2 => Mode::ForcedClosed,
            _ => Mode::Disabled,
        }
    }

    pub(super) const fn with_mode(self, mode: Mode) -> Self {
        let bits = match mode {
            Mode::Automatic => 0,
            Mode::ForcedOpen => 1,
            Mode::ForcedClosed => 2,
            Mode::Disabled => 3,
        };
        Self(self.0 & !MODE | bits << MODE_SHIFT)
    }

    pub(super) const fn ramps(self) -> bool {
        self.0 & RAMP != 0
    }

    pub(super) const fn with_ramp(self, on: bool) -> Self {
        Self(if on { self.0 | RAMP } else { self.0 & !RAMP })
    }

    /// The state as the world sees it: an order goes before the cycle.
    pub(super) const fn state(self) -> State {
        match self.mode() {
            Mode::Automatic => self.phase().state(),
            Mode::ForcedOpen => State::ForcedOpen,
            Mode::ForcedClosed => State::ForcedClosed,
            Mode::Disabled => State::Disabled,
        }
    }
}

// ===== impl Phase =====

impl Phase {
    pub(super) const fn state(self) -> State {
        match self {
            Self::Closed => State::Closed,
            Self::Open => State::Open,
            Self::HalfOpen => State::HalfOpen,
        }
    }
}
