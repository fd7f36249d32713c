package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// stat returns the fields of /proc/PID/stat behind the name, from the state on.
func stat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
}

func parentOf(pid int) int {
	f := stat(pid)
	if len(f) < 2 {
		return -1
	}
	n, _ := strconv.Atoi(f[1])
	return n
}

// tree is pid and its descendants.
func tree(pid int) []int {
	l := []int{pid}
	for i := 0; i < len(l); i++ {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", l[i]))
		for _, t := range tasks {
			b, _ := os.ReadFile(t)
			for _, c := range strings.Fields(string(b)) {
				n, _ := strconv.Atoi(c)
				l = append(l, n)
			}
		}
	}
	return l
}

// bytesOf returns a line of a file such as /proc/PID/status, given there in KiB.
func bytesOf(file, key string) float64 {
	b, _ := os.ReadFile(file)
	for _, l := range strings.Split(string(b), "\n") {
		if f := strings.Fields(l); len(f) > 1 && f[0] == key+":" {
			v, _ := strconv.ParseFloat(f[1], 64)
			return v * 1024
		}
	}
	return 0
}

// rss is the resident memory of the server and its children, in bytes.
func (p *process) rss() (sum float64) {
	for _, pid := range tree(p.cmd.Process.Pid) {
		sum += bytesOf(fmt.Sprintf("/proc/%d/status", pid), "VmRSS")
	}
	return sum
}

// slab is what the kernel holds for all, sockets included, in bytes.
func slab() float64 { return bytesOf("/proc/meminfo", "Slab") }

// cpu is CPU time in seconds: exact, and as the kernel splits it in ticks of 10 ms.
type cpu struct{ clock, user, sys float64 }

func (p *process) cpu() (c cpu) {
	for _, pid := range tree(p.cmd.Process.Pid) {
		c.clock += cpuClock(pid)
		if f := stat(pid); len(f) > 13 {
			u, _ := strconv.ParseFloat(f[11], 64)
			k, _ := strconv.ParseFloat(f[12], 64)
			c.user += u / 100
			c.sys += k / 100
		}
	}
	return c
}

// cpuClock reads the CPU clock of a process, in seconds.
func cpuClock(pid int) float64 {
	var ts unix.Timespec
	if unix.ClockGettime(int32(^pid<<3|2), &ts) != nil {
		return 0
	}
	return float64(ts.Nano()) / 1e9
}

// busy is how long all cores together have worked, in seconds.
func busy() float64 {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	var t float64
	for i, v := range strings.Fields(line)[1:] {
		if i != 3 && i != 4 && i < 8 { // not idle, not waiting
			x, _ := strconv.ParseFloat(v, 64)
			t += x
		}
	}
	return t / 100
}

// processor is the name of the CPU.
func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for _, l := range strings.Split(string(b), "\n") {
		if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return "unknown CPU"
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}
