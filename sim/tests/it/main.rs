//! The simulator judged by a toy whose mistakes are known, then the store judged by the simulator.

mod toy;
