// Package work runs small tasks on a bounded number of goroutines.
package work

import "sync"

// Pool runs tasks on at most Max goroutines at once. Tasks beyond that wait
// in order. An idle pool holds no goroutine. The zero Pool runs one task at a
// time. It is safe for concurrent use.
//
// The queue is not bounded here: whoever uses a Pool queues at most a fixed
// number of tasks per session, and sessions are limited.
type Pool struct {
	Max int // goroutines at once; less than 1 means 1; set before use

	mu      sync.Mutex
	running int
	queue   []func()
	active  sync.WaitGroup
}

// Go queues task and returns at once. A panic in a task is not recovered here.
func (p *Pool) Go(task func()) {
	p.active.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running >= max(1, p.Max) {
		p.queue = append(p.queue, task)
		return
	}
	p.running++
	go p.run(task)
}

func (p *Pool) run(task func()) {
	for task != nil {
		p.do(task)
		task = p.next()
	}
}

func (p *Pool) do(task func()) {
	defer p.active.Done()
	task()
}

func (p *Pool) next() func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		p.queue = nil // a burst must not keep its memory
		p.running--
		return nil
	}
	task := p.queue[0]
	p.queue[0] = nil
	p.queue = p.queue[1:]
	return task
}

// Wait returns when no task is running or queued. Tasks queued meanwhile are
// waited for too.
func (p *Pool) Wait() { p.active.Wait() }
