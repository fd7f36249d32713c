package main

import (
	"fmt"
	"math"
	"os"
	"time"

	"github.com/a4cafe1a/presence/bench/memory"
)

// rig is a server and its client during one run.
type rig struct {
	*process
	client *client
	name   string
	n      int
	base   float64        // RSS before the first connection
	swept  float64        // the same after a collection
	mem    *memory.Report // then; nil if the server does not tell
}

func newRig(s server, n int, port *int) (*rig, error) {
	addr := fmt.Sprintf("127.0.0.1:%d", *port)
	*port++
	p, err := s.start(addr, n)
	if err != nil {
		if p != nil {
			p.stop()
		}
		return nil, err
	}
	c, err := s.client(addr)
	if err != nil {
		p.stop()
		return nil, err
	}
	time.Sleep(300 * time.Millisecond) // whatever it starts
	return &rig{process: p, client: c, name: s.name, n: n, base: p.rss()}, nil
}

func (r *rig) close() {
	r.client.stop()
	r.process.stop()
}

// runOne measures one server once, and fills in what it finds.
func runOne(s server, n int, port *int, res row) error {
	if *burst {
		if err := burstRun(s, n, port, res); err != nil {
			return fmt.Errorf("burst: %w", err)
		}
	}
	r, err := newRig(s, n, port)
	if err != nil {
		return err
	}
	defer r.close()
	res["base_rss"], r.swept = r.base, r.base
	if s.usr1 {
		if m, ok := r.collect(); ok {
			r.mem, r.swept = &m, r.rss()
		}
	}
	if err := r.connect(res); err != nil {
		return err
	}
	time.Sleep(*interval + min(*interval, time.Second))
	live, err := r.steady(res)
	if err != nil {
		return err
	}
	r.memory(live, res)
	if *silent > 0 {
		return r.silence(res)
	}
	return nil
}

// connect opens all connections, spread over one interval: only the first may have had a heartbeat by the end.
func (r *rig) connect(res row) error {
	slab0, c0 := slab(), r.cpu()
	a, err := r.client.ask(90*time.Second, "connect %d %.3f 256", r.n, float64(r.n)/interval.Seconds())
	if err != nil {
		return err
	}
	ok := a.num("ok")
	res["ok"], res["fail"] = ok, a.num("fail")
	if ok == 0 {
		return fmt.Errorf("no connection: %v", a)
	}
	if a.num("fail") > 0 {
		fmt.Fprintf(os.Stderr, "%s: failures %v\n", r.name, a["why"])
	}
	res["paced_hs_us"] = (r.cpu().clock - c0.clock) / ok * 1e6
	res["paced_secs"] = a.num("secs")
	res["slab"] = (slab() - slab0) / ok
	return nil
}

// steady watches the window in which nothing but heartbeats happens.
func (r *rig) steady(res row) (live float64, err error) {
	before, err := r.client.stat()
	if err != nil {
		return 0, err
	}
	cpu0, busy0, client0, begun := r.cpu(), busy(), cpuClock(r.client.cmd.Process.Pid), time.Now()
	time.Sleep(*window)
	after, err := r.client.stat()
	if err != nil {
		return 0, err
	}
	cpu1, took := r.cpu(), time.Since(begun).Seconds()
	used := cpu1.clock - cpu0.clock
	others := busy() - busy0 - used - (cpuClock(r.client.cmd.Process.Pid) - client0)
	res["other_cpu_pct"] = math.Max(0, others/took*100)
	res["lost"] = after.num("lost")
	beats := after.num("hb") - before.num("hb")
	res["hb"] = beats
	if beats > 0 {
		res["hb_us"] = used / beats * 1e6
		if ticks := cpu1.user + cpu1.sys - cpu0.user - cpu0.sys; ticks > 0 {
			res["hb_user_us"] = res["hb_us"] * (cpu1.user - cpu0.user) / ticks
			res["hb_sys_us"] = res["hb_us"] * (cpu1.sys - cpu0.sys) / ticks
		}
	}
	if live = after.num("open"); live == 0 {
		return 0, fmt.Errorf("no connection left after the window")
	}
	return live, nil
}

// memory is what each connection costs, before and after forced collections.
func (r *rig) memory(live float64, res row) {
	res["rss"] = (r.rss() - r.base) / live
	if r.mem == nil {
		return
	}
	m, ok := r.collect()
	if !ok {
		return
	}
	per := func(now, then uint64) float64 { return (float64(now) - float64(then)) / live }
	zero := r.mem.After
	res["rss_gc"] = (r.rss() - r.swept) / live
	res["heap"] = per(m.Before.HeapAlloc, zero.HeapAlloc)
	res["heap_gc"] = per(m.After.HeapAlloc, zero.HeapAlloc)
	res["objects_gc"] = per(m.After.HeapObjects, zero.HeapObjects)
	res["stack"] = per(m.Before.StackInuse, zero.StackInuse)
	res["stack_gc"] = per(m.After.StackInuse, zero.StackInuse)
	res["goroutines"] = float64(m.After.Goroutines-zero.Goroutines) / live
	res["numgc"] = float64(m.Before.NumGC - zero.NumGC)
}

// silence lets some clients answer no more, and sees how late they are closed.
func (r *rig) silence(res row) error {
	if _, err := r.client.ask(5*time.Second, "silence %d", max(1, int(float64(r.n)**silent))); err != nil {
		return err
	}
	var a answer
	var err error
	for end := time.Now().Add(*timeout + 2**interval + 4*time.Second); time.Now().Before(end); {
		time.Sleep(250 * time.Millisecond)
		if a, err = r.client.ask(5*time.Second, "silentstat"); err != nil {
			return err
		}
		if a.num("eofs") >= a.num("silent") {
			break
		}
	}
	res["silent"], res["silent_closed"] = a.num("silent"), a.num("closed")
	if a.num("closed") > 0 {
		res["over_mean_ms"], res["over_max_ms"], res["over_min_ms"] = a.num("mean"), a.num("max"), a.num("min")
	}
	a, err = r.client.stat()
	if err == nil {
		res["lost"] = a.num("lost")
	}
	return err
}

// burstRun connects as fast as it goes.
func burstRun(s server, n int, port *int, res row) error {
	r, err := newRig(s, n, port)
	if err != nil {
		return err
	}
	defer r.close()
	c0 := r.cpu()
	a, err := r.client.ask(90*time.Second, "connect %d 0 256", n)
	if err != nil {
		return err
	}
	used, ok := r.cpu().clock-c0.clock, a.num("ok")
	res["burst_fail"] = a.num("fail")
	if ok > 0 {
		res["burst_hs_s"] = ok / a.num("secs")
		res["burst_hs_us"] = used / ok * 1e6
		res["burst_p99_ms"] = a.num("p99ms")
		time.Sleep(300 * time.Millisecond)
		res["burst_rss"] = (r.rss() - r.base) / ok
	}
	return nil
}
