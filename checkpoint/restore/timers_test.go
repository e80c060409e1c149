package restore

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fown"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/timer"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/timerfd"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
)

// timerFile returns a timerfd with the time to its next expiration and its interval in nanoseconds.
func timerFile(ticks, value, interval uint64) *fdinfo.FileEntry {
	zero := ptr(uint32(0))
	return &fdinfo.FileEntry{Type: ptr(fdinfo.FdTypes_TIMERFD), Id: zero, Tfd: &timerfd.TimerfdEntry{
		Id: zero, Flags: zero, Clockid: ptr(uint32(1)), SettimeFlags: zero, Ticks: ptr(ticks),
		Fown: &fown.FownEntry{Uid: zero, Euid: zero, Signum: zero, PidType: zero, Pid: zero},
		Vsec: ptr(uint64(0)), Vnsec: ptr(value), Isec: ptr(uint64(0)), Insec: ptr(interval),
	}}
}

// TestRepairTimers checks which timers change, and that nothing else of the images changes.
func TestRepairTimers(t *testing.T) {
	// A later CRIU can have kinds of files that the library does not know.
	later := []byte{0x08, 0xe7, 0x07, 0x10, 0x05, 0xfa, 0x3e, 0x01, 0x78}
	files := func(first uint64) []byte {
		b := image(t, timerFile(3, first, 50), timerFile(0, 7, 50), timerFile(0, 0, 50), timerFile(1, 0, 0), timerFile(1, 9, 50))
		copy(b, "12345678")
		return append(binary.LittleEndian.AppendUint32(b, uint32(len(later))), later...)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		filesImage: files(0),
		"mm-1.img": []byte("not read"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := repairTimers(dir, "4.2.1"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{
		filesImage: files(50),
		"mm-1.img": []byte("not read"),
	} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %x, %v, want %x", name, got, err, want)
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 2 {
		t.Errorf("files %v, %v, want 2", list, err)
	}
}

// TestRepairOneShots checks that timers of setitimer without an interval get one, only for versions of CRIU that would
// stop them, and that the other timers and the unknown fields of the image stay.
func TestRepairOneShots(t *testing.T) {
	itimer := func(value, interval uint64) *timer.ItimerEntry {
		return &timer.ItimerEntry{Isec: ptr(interval), Iusec: ptr(uint64(0)), Vsec: ptr(uint64(0)), Vusec: ptr(value)}
	}
	process := func(interval uint64) proto.Message {
		c := thread(nil)
		c.Tc.Timers = &timer.TaskTimersEntry{Real: itimer(7, interval), Virt: itimer(0, 0), Prof: itimer(5, 3)}
		c.ProtoReflect().SetUnknown([]byte{0xfa, 0x3e, 0x01, 0x78})
		return c
	}
	for version, want := range map[string]uint64{"3.17": never, "4.1.1": never, "unknown": never, "4.2": 0, "4.2.1": 0, "5.0": 0} {
		dir := t.TempDir()
		for name, m := range map[string]proto.Message{"core-1.img": process(0), "core-2.img": thread(nil)} {
			if err := os.WriteFile(filepath.Join(dir, name), image(t, m), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := repairTimers(dir, version); err != nil {
			t.Fatal(err)
		}
		for name, m := range map[string]proto.Message{"core-1.img": process(want), "core-2.img": thread(nil)} {
			got, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil || !bytes.Equal(got, image(t, m)) {
				t.Errorf("CRIU %s: %s: got %x, %v, want %x", version, name, got, err, image(t, m))
			}
		}
	}
}

// TestRepairTimersOfDamagedImages checks that damaged images are refused.
func TestRepairTimersOfDamagedImages(t *testing.T) {
	valid := image(t, timerFile(1, 0, 50))
	var entry proto.Message = timerFile(1, 0, 50)
	large := binary.LittleEndian.AppendUint32(image(t, entry), maxEntry+1)
	for name, content := range map[string][]byte{
		"short": valid[:5], "truncated": valid[:len(valid)-1], "truncated size": append(valid[:len(valid):len(valid)], 1), "too large": large,
		"no message": append(valid[:len(valid):len(valid)], 1, 0, 0, 0, 0xff),
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, filesImage), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := repairTimers(dir, "4.2.1"); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: got %v, want an invalid argument", name, err)
		}
	}
}
