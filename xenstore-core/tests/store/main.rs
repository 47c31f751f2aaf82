//! The store from outside: held conversations, the simplest store as a judge, and the client.

mod client;
mod conversations;
mod documents;
mod harness;
mod hostile;
mod model;
mod reference;
mod steps;
