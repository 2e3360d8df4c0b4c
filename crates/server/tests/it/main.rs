//! The server as its peers see it: requests in, answers out, rows kept. Managers are played here.

mod console;
mod database;
mod managers;
mod scene;
