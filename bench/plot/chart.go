package main

import (
	"image/color"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// chart is one value of one scenario.
type chart struct {
	file, title, axis string
	scenario, value   string
	log               bool // values differ by orders of magnitude
	descending        bool // more is better: the best is on top in any case
}

var charts = []chart{
	{file: "idle-memory.png", title: "Memory of an idle client", axis: "private memory of the server, bytes per client (log)", scenario: "idle", value: "bytes_per_client", log: true},
	{file: "connect-rate.png", title: "Clients that connect and subscribe", axis: "clients per second (log)", scenario: "connect", value: "connects_per_s", log: true, descending: true},
	{file: "unicast-p50.png", title: "Publish to socket, p50, 200 messages a second", axis: "ms (log)", scenario: "unicast-latency", value: "p50_ms", log: true},
	{file: "unicast-p99.png", title: "Publish to socket, p99, 200 messages a second", axis: "ms (log)", scenario: "unicast-latency", value: "p99_ms", log: true},
	{file: "unicast-throughput.png", title: "Messages to single clients, one publish call each", axis: "delivered messages per second", scenario: "unicast-throughput", value: "messages_per_s", descending: true},
	{file: "unicast-cpu.png", title: "Processor time of all servers, brokers included", axis: "seconds per 100,000 delivered messages", scenario: "unicast-throughput", value: "cpu_s_per_100k"},
	{file: "broadcast-last.png", title: "Broadcast: the last client has it", axis: "ms after the publish (log)", scenario: "broadcast", value: "last_ms", log: true},
	{file: "slow-readers.png", title: "Broadcast p99 beside 10 clients that read nothing", axis: "ms (log)", scenario: "slow-readers", value: "p99_beside_ms", log: true},
	{file: "reconnect.png", title: "All clients are back after SIGKILL and restart of the server", axis: "seconds (log)", scenario: "reconnect", value: "all_back_s", log: true},
}

// bar is one system in a chart.
type bar struct {
	system           string
	median, low, top float64
}

// bars are the systems that have the value, the best first, and how many clients they had.
func (c chart) bars(all []measured) (bars []bar, clients int) {
	for _, m := range all {
		v, ok := m.Values[c.value]
		if m.Scenario != c.scenario || !ok || v <= 0 {
			continue
		}
		spread, ok := m.Spread[c.value]
		if !ok {
			spread = [2]float64{v, v}
		}
		bars, clients = append(bars, bar{m.System, v, spread[0], spread[1]}), m.Clients
	}
	slices.SortStableFunc(bars, func(a, b bar) int {
		if c.descending {
			a, b = b, a
		}
		switch {
		case a.median < b.median:
			return -1
		case a.median > b.median:
			return 1
		}
		return 0
	})
	return bars, clients
}

var (
	ours   = color.RGBA{0x1f, 0x77, 0xb4, 0xff}
	bare   = color.RGBA{0x9a, 0x9a, 0x9a, 0xff}
	others = color.RGBA{0xe8, 0xb2, 0x6b, 0xff}
	grid   = color.RGBA{0xdd, 0xdd, 0xdd, 0xff}
)

// colorOf tells wscluster, the baselines and the others apart.
func colorOf(system string) color.Color {
	switch system {
	case "wscluster":
		return ours
	case "bare-loop", "bare-relay", "raw-amqp":
		return bare
	}
	return others
}

// draw writes the chart, bars lying, the first on top.
func (c chart) draw(bars []bar, subtitle, file string) error {
	p := plot.New()
	p.BackgroundColor = color.White
	p.Title.Text = c.title + "\n" + subtitle
	p.Title.TextStyle.Font.Size = vg.Points(11)
	p.Title.Padding = vg.Points(6)
	p.X.Label.Text = c.axis
	p.X.Label.TextStyle.Font.Size = vg.Points(11)
	low, high := math.Inf(1), 0.0
	for _, b := range bars {
		low, high = min(low, b.low), max(high, b.top)
	}
	if c.log {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, decades{}
		p.X.Min, p.X.Max = math.Pow(10, math.Floor(math.Log10(low*0.8))), high*3 // room for the numbers
	} else {
		p.X.Tick.Marker = grouped{}
		p.X.Min, p.X.Max = 0, high*1.18
	}
	p.Y.Min, p.Y.Max = -0.6, float64(len(bars))-0.4
	var names []plot.Tick
	for i, b := range bars {
		names = append(names, plot.Tick{Value: float64(len(bars) - 1 - i), Label: "   " + b.system})
	}
	p.Y.Tick.Marker = plot.ConstantTicks(names)
	p.Y.Tick.Label.Font.Size, p.X.Tick.Label.Font.Size = vg.Points(11), vg.Points(10)
	p.Y.Tick.Length = 0
	p.Y.Padding = vg.Points(6)
	p.Add(lines{p.X.Tick.Marker}, &lying{bars, p.X.Min})
	return p.Save(18*vg.Centimeter, vg.Length(3.2+0.75*float64(len(bars)))*vg.Centimeter, file)
}

// lying draws the bars.
type lying struct {
	bars []bar
	from float64 // where they begin
}

func (l *lying) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	half := (y(1) - y(0)) * 0.36
	style := text.Style{Font: p.X.Tick.Label.Font, Color: color.Black, YAlign: text.YCenter, Handler: p.X.Tick.Label.Handler}
	for i, b := range l.bars {
		at := y(float64(len(l.bars) - 1 - i))
		c.FillPolygon(colorOf(b.system), []vg.Point{{X: x(l.from), Y: at - half}, {X: x(b.median), Y: at - half}, {X: x(b.median), Y: at + half}, {X: x(l.from), Y: at + half}})
		whisker := draw.LineStyle{Color: color.Black, Width: vg.Points(1)}
		if b.top > b.low {
			c.StrokeLine2(whisker, x(b.low), at, x(b.top), at)
			for _, end := range []float64{b.low, b.top} {
				c.StrokeLine2(whisker, x(end), at-half/2, x(end), at+half/2)
			}
		}
		c.FillText(style, vg.Point{X: x(max(b.top, b.median)) + vg.Points(4), Y: at}, number(b.median))
	}
}

// lines are upright ones at the ticks that have a label.
type lines struct{ ticks plot.Ticker }

func (l lines) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	for _, t := range l.ticks.Ticks(p.X.Min, p.X.Max) {
		if t.Label != "" {
			c.StrokeLine2(draw.LineStyle{Color: grid, Width: vg.Points(0.5)}, x(t.Value), c.Min.Y, x(t.Value), c.Max.Y)
		}
	}
}

// grouped are the usual ticks, their labels as number writes them.
type grouped struct{}

func (grouped) Ticks(from, to float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(from, to)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = number(ticks[i].Value)
		}
	}
	return ticks
}

// decades are 1, 10, 100 and so on.
type decades struct{}

func (decades) Ticks(from, to float64) (ticks []plot.Tick) {
	for v := math.Pow(10, math.Floor(math.Log10(from))); v <= to; v *= 10 {
		for m := 1.0; m < 10; m++ {
			t := plot.Tick{Value: v * m}
			if m == 1 {
				t.Label = number(v)
			}
			if t.Value >= from && t.Value <= to {
				ticks = append(ticks, t)
			}
		}
	}
	return ticks
}

// number writes v with two or three digits, and groups thousands.
func number(v float64) string {
	if v < 100 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	digits := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
