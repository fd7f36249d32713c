package main

import (
	"encoding/csv"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
)

// row is what one run found. What could not be measured is missing.
type row map[string]float64

// columns of the CSV file.
var columns = []string{"name", "n", "round", "ok", "fail", "lost", "rss", "rss_gc", "heap", "heap_gc", "stack", "stack_gc",
	"goroutines", "objects_gc", "numgc", "hb", "hb_us", "hb_user_us", "hb_sys_us", "paced_hs_us", "paced_secs",
	"burst_hs_s", "burst_hs_us", "burst_fail", "burst_p99_ms", "burst_rss",
	"over_mean_ms", "over_max_ms", "over_min_ms", "silent", "silent_closed", "slab", "base_rss", "other_cpu_pct"}

// run names the rows that are compared: all rounds of one server with n connections.
type run struct {
	n    int
	name string
}

type results map[run][]row

func (all results) add(name string, r row) {
	k := run{int(r["n"]), name}
	all[k] = append(all[k], r)
}

// sizes are the numbers of connections, ascending.
func (all results) sizes() []int {
	seen := map[int]bool{}
	for k := range all {
		seen[k.n] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// median of a column over the rounds.
func (all results) median(n int, name, column string) (float64, bool) {
	x := all.values(n, name, column)
	if len(x) == 0 {
		return 0, false
	}
	slices.Sort(x)
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2, true
}

func (all results) values(n int, name, column string) (x []float64) {
	for _, r := range all[run{n, name}] {
		if v, ok := r[column]; ok {
			x = append(x, v)
		}
	}
	return x
}

// cell shows a median, with the range if there was more than one round.
func (all results) cell(n int, name, column, format string) string {
	m, ok := all.median(n, name, column)
	if !ok {
		return "-"
	}
	if x := all.values(n, name, column); len(x) > 1 {
		return fmt.Sprintf(format+" ("+format+"-"+format+")", m, slices.Min(x), slices.Max(x))
	}
	return fmt.Sprintf(format, m)
}

type resultFile struct {
	f *os.File
	w *csv.Writer
}

func create(path string) *resultFile {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	check(err)
	r := &resultFile{f, csv.NewWriter(f)}
	st, err := f.Stat()
	check(err)
	if st.Size() == 0 {
		check(r.w.Write(columns))
	}
	return r
}

func (f *resultFile) write(name string, r row) {
	rec := []string{name}
	for _, c := range columns[1:] {
		v, ok := r[c]
		if ok && !math.IsNaN(v) {
			rec = append(rec, strconv.FormatFloat(v, 'f', -1, 64))
		} else {
			rec = append(rec, "")
		}
	}
	check(f.w.Write(rec))
	f.w.Flush()
	check(f.w.Error())
}

func (f *resultFile) close() { f.f.Close() }

func load(path string) results {
	f, err := os.Open(path)
	check(err)
	defer f.Close()
	records, err := csv.NewReader(f).ReadAll()
	check(err)
	all := results{}
	if len(records) == 0 {
		return all
	}
	for _, rec := range records[1:] {
		r := row{}
		for i, h := range records[0] {
			if v, err := strconv.ParseFloat(rec[i], 64); err == nil {
				r[h] = v
			}
		}
		all.add(rec[0], r)
	}
	return all
}
