//! Teachers: those whose responses are foreign to the model that learns from them. One behind an address is a [`chat`](crate::sampling::server).

mod look;
mod scripted;

pub use scripted::Scripted;
