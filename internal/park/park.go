// Package park waits for many sockets at once, so that a quiet connection
// needs neither a goroutine nor a buffer. It works on Linux; elsewhere New
// returns nil and connections keep a goroutine each.
package park

// Sleeper is told when its socket may be readable, or has ended.
type Sleeper interface {
	// Readable is called on a goroutine that serves many sockets: it must not
	// wait for anything. It is called again only after more has arrived, so
	// somebody has to read until nothing is left. hungUp says that the peer has
	// shut its side; while it has not, a short read is the last.
	Readable(hungUp bool)

	// Warm loads what Readable will need, and changes nothing: the memory of
	// quiet sockets is cold, and the CPU waits for many at once as long as for
	// one.
	Warm()
}

// Ref names a parked socket. The zero Ref names none.
type Ref struct {
	gen   uint32
	index uint32
	shard uint32
}
