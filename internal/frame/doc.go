// Package frame follows RFC 6455 frames in byte streams that belong to
// somebody else.
//
// A WebSocket library reads and writes its connection as if it were alone.
// Below it, the connection has to know three things:
//
//   - [In] follows what a client sends. It finds pongs, closes and heartbeat
//     messages, and takes those that are not meant for the library out of the
//     stream.
//   - [Out] follows what the library sends. It knows where one frame ends and
//     the next begins, so that a heartbeat can be written into the gap.
//   - [Head] follows the HTTP response head that some libraries write through
//     the connection before their first frame.
//
// The Append functions build the few frames a server writes on its own.
//
// All three are state machines over byte slices: no I/O, no clock, no locks,
// no allocation, and a few dozen bytes of state. Their zero values are ready
// to use. None may be used concurrently, but In and Out share nothing: one
// goroutine may scan each.
//
// Only headers are looked at. Payloads are counted down and pass untouched;
// the exceptions are pong and close frames and short text messages that may be
// heartbeats.
package frame
