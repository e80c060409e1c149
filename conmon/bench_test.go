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

// writeLines is this test binary as a fast container: it writes as many bytes
// as its environment says in lines of 100 bytes, chunk bytes at once, then waits
// to be killed.
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

// cpuSeconds is the processor time that a process has used.
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

// BenchmarkLog is a container that writes 200 MB of lines of 100 bytes as fast
// as it can. Reported: MB/s that the container gets rid of, and the processor
// time of its monitor for the 200 MB.
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
	b := newBed(tb)
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

// BenchmarkMemory has 20 containers at once. Reported: the memory of one
// monitor, what it shares counted in part (PSS) and not at all (private).
func BenchmarkMemory(b *testing.B) {
	const monitors = 20
	var pss, private int
	for range b.N {
		var beds []*bed
		for range monitors {
			bed := newBed(b)
			bed.spec.RuntimeEnv = append(bed.spec.RuntimeEnv, "FAKE_SCRIPT=echo hello; exec sleep 1000")
			bed.create()
			bed.start()
			beds = append(beds, bed)
		}
		time.Sleep(2 * time.Second) // for buffers to be given back
		for _, bed := range beds {
			pss += smaps(b, bed.monitor.PID, "Pss:")
			private += smaps(b, bed.monitor.PID, "Private_Dirty:")
		}
		for _, bed := range beds {
			bed.end()
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
