//! Sessions played against the simulated platform, a server and agents that this test plays, and cut
//! or failed at every single deed.

mod backup;
mod cuts;
mod plans;
mod scene;
mod shown;
