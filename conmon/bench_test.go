package conmon_test

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const writerEnv = "CONMON_TEST_WRITER"

// writeLines makes this test binary a container that writes fast: it writes the number of bytes
// in its environment in lines of 100 bytes, chunk bytes per write, and then waits to be killed.
func writeLines() int {
	var total, chunk int
	if _, err := fmt.Sscan(os.Getenv(writerEnv), &total, &chunk); err != nil {
		return 1
	}
	line := append(bytes.Repeat([]byte("x"), 99), '\n')
	b := bytes.Repeat(line, max(1, chunk/len(line)))
	for total > 0 {
		n, err := os.Stdout.Write(b[:min(len(b), total)])
		if err != nil {
			return 1
		}
		total -= n
	}
	time.Sleep(time.Hour)
	return 0
}

// cpuSeconds returns the CPU time that a process has used.
func cpuSeconds(b testing.TB, pid int) float64 {
	b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return float64(user+system) / 100 // USER_HZ
}

// BenchmarkLog measures a container that writes 200 MB in lines of 100 bytes as fast as
// possible. It reports the rate in MB/s, and the CPU time that the monitor needs for the 200
// MB.
func BenchmarkLog(b *testing.B) {
	const total = 200_000_000
	for _, chunk := range []int{100, 4096, 65536} {
		b.Run(fmt.Sprintf("write=%d", chunk), func(b *testing.B) {
			b.SetBytes(total)
			var cpu float64
			for b.Loop() {
				cpu += benchLog(b, total, chunk)
			}
			b.ReportMetric(cpu/float64(b.N), "cpu-s/200MB")
		})
	}
}

func benchLog(tb *testing.B, total, chunk int) float64 {
	tb.StopTimer()
	b := newTestbed(tb)
	b.writer(total, chunk)
	b.create()
	const prefix = len("2006-01-02T15:04:05.000000000Z stdout F ")
	want := int64(total/100) * int64(100+prefix)
	before := cpuSeconds(tb, b.monitor.PID)
	tb.StartTimer()
	b.start()
	b.eventually("all of the log", func() bool {
		info, err := os.Stat(b.spec.LogPath)
		return err == nil && info.Size() >= want
	})
	tb.StopTimer()
	cpu := cpuSeconds(tb, b.monitor.PID) - before
	b.end()
	_ = os.Remove(b.spec.LogPath)
	tb.StartTimer()
	return cpu
}

// BenchmarkMemory runs 20 containers. It reports the memory of one monitor: the proportional
// set size (PSS) and the private memory.
func BenchmarkMemory(b *testing.B) {
	const monitors = 20
	var pss, private int
	for range b.N {
		var beds []*testbed
		for range monitors {
			testbed := newTestbed(b)
			testbed.spec.RuntimeEnv = append(testbed.spec.RuntimeEnv, "FAKE_SCRIPT=echo hello; exec sleep 1000")
			testbed.create()
			testbed.start()
			beds = append(beds, testbed)
		}
		time.Sleep(2 * time.Second) // until the monitors have released their buffers
		for _, testbed := range beds {
			pss += smaps(b, testbed.monitor.PID, "Pss:")
			private += smaps(b, testbed.monitor.PID, "Private_Dirty:")
		}
		for _, testbed := range beds {
			testbed.end()
		}
	}
	b.ReportMetric(float64(pss)/float64(b.N*monitors), "PSS-kB")
	b.ReportMetric(float64(private)/float64(b.N*monitors), "private-kB")
}

func smaps(b *testing.B, pid int, field string) (kB int) {
	b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "\n"+field)
	_, _ = fmt.Sscan(rest, &kB)
	return kB
}
