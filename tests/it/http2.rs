//! HTTP/2 from clients: either exactly one well-formed HTTP/1 request comes out of a stream, or an
//! error goes back, and the other streams of its connection go on where the protocol says so.

mod answers;
mod floods;
mod flow;
mod injections;
