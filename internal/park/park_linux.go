package park

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Lot is a set of parked sockets. All methods may be called concurrently.
type Lot struct {
	shards []*shard
	robin  atomic.Uint32
	ended  sync.WaitGroup
}

// shard is one epoll instance. It is itself watched by Go's own poller, so its
// goroutine waits without a thread.
type shard struct {
	file *os.File
	raw  syscall.RawConn

	mu    sync.Mutex
	slots []slot
	free  []uint32
}

type slot struct {
	it  Sleeper
	gen uint32
}

// New makes a Lot with that many goroutines. It returns nil when the system
// does not give one.
func New(goroutines int) *Lot {
	l := &Lot{}
	for range max(1, goroutines) {
		s, err := newShard()
		if err != nil {
			l.Close()
			return nil
		}
		l.shards = append(l.shards, s)
		l.ended.Go(s.run)
	}
	return l
}

func newShard() (*shard, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	s := &shard{file: os.NewFile(uintptr(fd), "epoll")}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil, err
	}
	return s, nil
}

// Add watches a socket until it is closed. Readable is called soon if there is
// something already. ok is false when the system refuses, or when the socket is
// watched; then nothing more is.
func (l *Lot) Add(raw syscall.RawConn, it Sleeper) (r Ref, ok bool) { return l.watch(raw, it, false) }

// TakeOver is Add for a socket that may be watched already. Who did so may no
// longer be told.
func (l *Lot) TakeOver(raw syscall.RawConn, it Sleeper) (r Ref, ok bool) {
	return l.watch(raw, it, true)
}

func (l *Lot) watch(raw syscall.RawConn, it Sleeper, takeOver bool) (r Ref, ok bool) {
	n := l.robin.Add(1) % uint32(len(l.shards))
	s := l.shards[n]
	s.mu.Lock()
	var index uint32
	if k := len(s.free); k > 0 {
		index = s.free[k-1]
		s.free = s.free[:k-1]
	} else {
		index = uint32(len(s.slots))
		s.slots = append(s.slots, slot{})
	}
	s.slots[index].it = it
	s.slots[index].gen++
	gen := s.slots[index].gen
	s.mu.Unlock()
	r = Ref{gen: gen, index: index, shard: n}
	// The event names the slot and its generation, never a bare descriptor:
	// those are used again at once.
	ev := unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff,
		Fd:     int32(index), Pad: int32(gen),
	}
	var err, failed error
	if e := raw.Control(func(fd uintptr) {
		// The Lot may be closed, and its descriptor somebody else's.
		err = s.raw.Control(func(epoll uintptr) {
			failed = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, int(fd), &ev)
			if takeOver && failed == unix.EEXIST {
				failed = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_MOD, int(fd), &ev)
			}
		})
	}); e != nil || err != nil || failed != nil {
		l.Remove(r)
		return Ref{}, false
	}
	return r, true
}

// Remove forgets a socket. A Readable that was due may still be called, once.
// The kernel forgets the socket when it is closed.
func (l *Lot) Remove(r Ref) {
	if r.gen == 0 {
		return
	}
	s := l.shards[r.shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	if sl := &s.slots[r.index]; sl.gen == r.gen && sl.it != nil {
		sl.it = nil
		s.free = append(s.free, r.index)
	}
}

// Close ends the goroutines and returns when they have ended.
func (l *Lot) Close() {
	for _, s := range l.shards {
		_ = s.file.Close()
	}
	l.ended.Wait()
}

// run serves the sockets from inside Read. Go's poller remembers what comes
// meanwhile, so epoll_wait is called once per wakeup, not again to find that
// nothing is left.
func (s *shard) run() {
	events := make([]unix.EpollEvent, 128)
	ready := make([]Sleeper, 0, len(events))
	var failed bool
	serve := func(fd uintptr) (again bool) {
		n, err := poll(fd, events)
		failed = err != 0 && err != unix.EINTR
		ready = s.ready(ready[:0], events[:max(0, n)])
		for _, it := range ready {
			if it != nil {
				it.Warm()
			}
		}
		for i, it := range ready {
			if it != nil {
				it.Readable(events[i].Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0)
			}
		}
		clear(ready) // who has gone must not be held
		return n == len(events) || err != 0
	}
	for s.raw.Read(serve) == nil && !failed {
	}
}

// poll is an epoll_wait that does not wait, so that Go's scheduler need not be
// told of it.
func poll(fd uintptr, events []unix.EpollEvent) (int, unix.Errno) {
	n, _, err := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd,
		uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	return int(n), err
}

// ready returns whom events are for, nil for those that are no longer watched.
func (s *shard) ready(dst []Sleeper, events []unix.EpollEvent) []Sleeper {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range events {
		dst = append(dst, s.at(&events[i]))
	}
	return dst
}

func (s *shard) at(e *unix.EpollEvent) Sleeper {
	if sl := &s.slots[uint32(e.Fd)]; sl.gen == uint32(e.Pad) {
		return sl.it
	}
	return nil
}
