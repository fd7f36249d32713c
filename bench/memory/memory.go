// Package memory is what a server says of its memory when it gets SIGUSR1.
package memory

import (
	"runtime"
	"runtime/debug"
)

// Stats is what the runtime says, in bytes.
type Stats struct {
	HeapAlloc, HeapInuse, HeapIdle, HeapReleased, HeapObjects uint64
	StackInuse, Sys, GCSys, NextGC, OtherSys, MSpanInuse      uint64
	NumGC                                                     uint32
	Goroutines                                                int
}

// Report is printed as JSON after the word MEM.
type Report struct {
	Before Stats `json:"before"`
	After  Stats `json:"after"` // a forced collection
}

// Take collects garbage and gives it back to the system.
func Take() Report {
	before := read()
	debug.FreeOSMemory()
	return Report{before, read()}
}

func read() Stats {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return Stats{
		m.HeapAlloc, m.HeapInuse, m.HeapIdle, m.HeapReleased, m.HeapObjects,
		m.StackInuse, m.Sys, m.GCSys, m.NextGC, m.OtherSys, m.MSpanInuse, m.NumGC, runtime.NumGoroutine(),
	}
}
