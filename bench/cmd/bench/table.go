package main

import (
	"debug/buildinfo"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// text is all of the report, as Markdown.
func (all results) text(servers []server) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", method())
	if *growth {
		all.growth(&b, servers)
		return b.String()
	}
	for _, n := range all.sizes() {
		all.table(&b, servers, n)
		all.targets(&b, n)
		all.detail(&b, servers, n)
	}
	return b.String()
}

// method says how the figures came about.
func method() string {
	rs := "One round"
	if *rounds > 1 {
		rs = fmt.Sprintf("%d interleaved rounds, medians", *rounds)
	}
	at := ""
	if info, err := buildinfo.ReadFile(filepath.Join(*binDir, "presence")); err == nil {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				at = ", presence at " + s.Value[:min(7, len(s.Value))]
			}
		}
	}
	how := fmt.Sprintf("interval %.3g s, timeout %.3g s, window %.3g s, %.0f %% go silent", interval.Seconds(), timeout.Seconds(), window.Seconds(), *silent*100)
	if *echo {
		rs, how = fmt.Sprintf("Medians of %d interleaved rounds", *rounds), fmt.Sprintf("%.3g s each, %d clients", window.Seconds(), echoClients)
	}
	return fmt.Sprintf("%s, %s. %s, %d cores of %s, %s%s.", rs, how, runtime.Version(), runtime.NumCPU(), processor(), kernel(), at)
}

// sorted are the servers that have results for n, the leanest first, those over TLS last.
func (all results) sorted(servers []server, n int) []server {
	var there []server
	for _, s := range servers {
		if _, ok := all.median(n, s.name, "rss"); ok {
			there = append(there, s)
		}
	}
	slices.SortStableFunc(there, func(a, b server) int {
		if ta, tb := a.overTLS(), b.overTLS(); ta != tb {
			if tb {
				return -1
			}
			return 1
		}
		x, _ := all.median(n, a.name, "rss")
		y, _ := all.median(n, b.name, "rss")
		return int(x - y)
	})
	return there
}

func (s server) overTLS() bool { return slices.Contains(strings.Fields(s.mode), "-tls") }

// table is what docs/performance.md shows.
func (all results) table(b *strings.Builder, servers []server, n int) {
	fmt.Fprintf(b, "\n### N = %s\n\n", thousands(float64(n)))
	b.WriteString("| server | RSS per connection, B | after a forced GC | goroutines | us CPU per heartbeat | us CPU per handshake | closed late by, max |\n")
	b.WriteString("|---|--:|--:|--:|--:|--:|--:|\n")
	for _, s := range all.sorted(servers, n) {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s ms |\n", s.title(), all.bytes(n, s.name, "rss"), all.bytes(n, s.name, "rss_gc"),
			all.cell(n, s.name, "goroutines", "%.0f"), all.cell(n, s.name, "hb_us", "%.1f"), all.cell(n, s.name, "paced_hs_us", "%.0f"),
			all.cell(n, s.name, "over_max_ms", "%.0f"))
	}
}

func (all results) bytes(n int, name, column string) string {
	v, ok := all.median(n, name, column)
	if !ok {
		return "-"
	}
	return thousands(v)
}

// thousands writes 12,345.
func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// target is what a figure must be, beside another server's if that has a name.
type target struct {
	what, name, column string
	must               float64
	times              string // must is a multiple of this server's figure
}

var targets = []target{
	{"RSS, parked", "presence", "rss", 4000, ""},
	{"RSS, parked, of gws", "presence", "rss", 1.0 / 3, "gws-sp"},
	{"RSS after a forced GC, parked (aim)", "presence", "rss_gc", 2100, ""},
	{"RSS, blocking, of coder", "presence-blocking", "rss", 0.75, "rawcoder"},
	{"CPU per heartbeat, parked, of gws", "presence", "hb_us", 1.15, "gws-sp"},
	{"CPU per heartbeat, blocking, of coder", "presence-blocking", "hb_us", 0.4, "rawcoder"},
	{"CPU per handshake, Handler, of coder", "presence-blocking", "paced_hs_us", 1.3, "rawcoder"},
	{"CPU per handshake, Callback, of coder", "presence", "paced_hs_us", 1.3, "rawcoder"},
	{"closed late by, ms, parked", "presence", "over_max_ms", 250, ""},
	{"closed late by, ms, blocking", "presence-blocking", "over_max_ms", 250, ""},
	{"goroutines, parked", "presence", "goroutines", 0.01, ""},
	{"RSS, parked, TLS, of coder over TLS", "presence-tls", "rss", 0.4, "rawcoder-tls"},
	{"RSS, parked, TLS (aim)", "presence-tls", "rss", 12_000, ""},
}

// targets are what this project wants of itself.
func (all results) targets(b *strings.Builder, n int) {
	b.WriteString("\n| target | at most | measured | |\n|---|--:|--:|---|\n")
	for _, t := range targets {
		v, ok := all.median(n, t.name, t.column)
		if t.times != "" {
			other, there := all.median(n, t.times, t.column)
			v, ok = v/other, ok && there && other > 0
		}
		if !ok {
			continue
		}
		verdict := "met"
		if v > t.must {
			verdict = "**missed**"
		}
		show := func(v float64) string {
			if t.times != "" {
				return fmt.Sprintf("%.2f x", v)
			}
			if t.must < 1 {
				return fmt.Sprintf("%.3f", v)
			}
			return thousands(v)
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", t.what, show(t.must), show(v), verdict)
	}
}

// detail is what helps to judge the figures above.
func (all results) detail(b *strings.Builder, servers []server, n int) {
	b.WriteString("\n| server | runs | ok / failed / lost | heap live, B | stack, B | objects | empty, MiB | CPU user + sys | heartbeats | late: mean | silent closed | CPU of others, % of a core |\n")
	b.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, s := range all.sorted(servers, n) {
		c := func(column, format string) string { return all.cell(n, s.name, column, format) }
		empty, _ := all.median(n, s.name, "base_rss")
		fmt.Fprintf(b, "| %s | %d | %s / %s / %s | %s | %s | %s | %.1f | %s + %s | %s | %s ms | %s of %s | %s |\n", s.name, len(all[run{n, s.name}]),
			c("ok", "%.0f"), c("fail", "%.0f"), c("lost", "%.0f"), all.bytes(n, s.name, "heap_gc"), all.bytes(n, s.name, "stack_gc"), c("objects_gc", "%.1f"),
			empty/(1<<20), c("hb_user_us", "%.1f"), c("hb_sys_us", "%.1f"), c("hb", "%.0f"), c("over_mean_ms", "%.0f"),
			c("silent_closed", "%.0f"), c("silent", "%.0f"), c("other_cpu_pct", "%.0f"))
	}
	if !*burst {
		return
	}
	b.WriteString("\n| as fast as it goes | handshakes/s | us CPU per handshake | p99 | failed |\n|---|--:|--:|--:|--:|\n")
	for _, s := range all.sorted(servers, n) {
		c := func(column, format string) string { return all.cell(n, s.name, column, format) }
		fmt.Fprintf(b, "| %s | %s | %s | %s ms | %s |\n", s.name, c("burst_hs_s", "%.0f"), c("burst_hs_us", "%.0f"), c("burst_p99_ms", "%.0f"), c("burst_fail", "%.0f"))
	}
}

// growth shows how cost grows with the number of connections.
func (all results) growth(b *strings.Builder, servers []server) {
	b.WriteString("\n| connections |")
	for _, s := range servers {
		fmt.Fprintf(b, " %s: RSS per connection, B | after a forced GC | us CPU per heartbeat | CPU, %% of a core | us CPU per handshake |", s.title())
	}
	b.WriteString("\n|--:|" + strings.Repeat("--:|--:|--:|--:|--:|", len(servers)) + "\n")
	for _, n := range all.sizes() {
		fmt.Fprintf(b, "| %s |", thousands(float64(n)))
		for _, s := range servers {
			beat, _ := all.median(n, s.name, "hb_us")
			fmt.Fprintf(b, " %s | %s | %s | %.1f | %s |", all.bytes(n, s.name, "rss"), all.bytes(n, s.name, "rss_gc"), all.cell(n, s.name, "hb_us", "%.1f"),
				beat*float64(n)/interval.Seconds()/1e4, all.cell(n, s.name, "paced_hs_us", "%.0f"))
		}
		b.WriteString("\n")
	}
}
