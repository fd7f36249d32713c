package main

import (
	"bytes"
	"fmt"
	"html"

	"slices"
	"strings"
)

// Places of the plot, in pixels.
const (
	plotWidth = 880
	plotLeft  = 24
	plotLabel = 250 // where the bars of the first panel begin
	plotBar   = 230 // the longest bar
	plotNext  = 570 // where those of the second begin
	plotTop   = 96
	plotRow   = 36
	plotThick = 16
)

// plotStyle has a surface of its own: the page around the picture may be dark where the reader's system is light.
const plotStyle = `<style>
text { font-family: system-ui, -apple-system, "Segoe UI", sans-serif; font-size: 13px; fill: #1f2328; }
.surface { fill: #ffffff; } .title { font-size: 16px; font-weight: 600; } .head { font-weight: 600; }
.soft { fill: #59636e; font-size: 11px; } .ours { fill: #0a6fc2; } .other { fill: #a3adb8; } .axis { stroke: #d1d9e0; }
.name.mine { font-weight: 600; }
@media (prefers-color-scheme: dark) {
 text { fill: #f0f3f6; } .surface { fill: #12161c; } .soft { fill: #9ba7b4; } .ours { fill: #4aa3f0; } .other { fill: #5f6b78; } .axis { stroke: #3a434d; }
}
</style>
`

// plot draws bytes per connection and CPU per heartbeat of the largest N as SVG, one line for each server.
func (all results) plot(servers []server) []byte {
	sizes := all.sizes()
	if len(sizes) == 0 {
		return nil
	}
	n := slices.Max(sizes)
	there := all.sorted(servers, n)
	height := plotTop + plotRow*len(there) + 30
	var b bytes.Buffer
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\">\n", plotWidth, height, plotWidth, height)
	fmt.Fprintf(&b, "<title>What a quiet connection costs: bytes of RSS, and CPU time per heartbeat</title>\n%s", plotStyle)
	fmt.Fprintf(&b, "<rect class=\"surface\" width=\"%d\" height=\"%d\" rx=\"8\"/>\n", plotWidth, height)
	put := func(x, y int, class, text string) {
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" class=\"%s\">%s</text>\n", x, y, class, html.EscapeString(text))
	}
	put(plotLeft, 34, "title", "What a quiet connection costs")
	put(plotLeft, 54, "soft", fmt.Sprintf("%s connections in one run, a heartbeat every %.3g s. Shorter is better.", thousands(float64(n)), interval.Seconds()))
	panels := []struct {
		x                     int
		column, head, numbers string
	}{
		{plotLabel, "rss", "Bytes of RSS per connection", "%.0f"},
		{plotNext, "hb_us", "Microseconds of CPU per heartbeat", "%.1f"},
	}
	for _, p := range panels {
		put(p.x, plotTop-16, "head", p.head)
		fmt.Fprintf(&b, "<line class=\"axis\" x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/>\n", p.x, plotTop-4, p.x, plotTop+plotRow*len(there)-4)
		longest := 0.0
		for _, s := range there {
			v, _ := all.median(n, s.name, p.column)
			longest = max(longest, v)
		}
		for i, s := range there {
			v, ok := all.median(n, s.name, p.column)
			if !ok || longest == 0 {
				continue
			}
			class, text := "other", thousands(v)
			if s.ours() {
				class = "ours"
			}
			if p.numbers != "%.0f" {
				text = fmt.Sprintf(p.numbers, v)
			}
			y, w := plotTop+i*plotRow+4, max(1, v/longest*plotBar)
			fmt.Fprintf(&b, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\"/>\n", class, p.x, y, w, plotThick)
			put(p.x+int(w)+6, y+13, "", text)
		}
	}
	for i, s := range there {
		name, rest, _ := strings.Cut(strings.ReplaceAll(s.title(), "**", ""), ", ")
		class, y := "name", plotTop+i*plotRow+4
		if s.ours() {
			class = "name mine"
		}
		if rest == "" {
			put(plotLeft, y+13, class, name)
			continue
		}
		put(plotLeft, y+8, class, name)
		put(plotLeft, y+22, "soft", rest)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// ours says that the label names this project.
func (s server) ours() bool { return strings.Contains(s.label, "**") }
