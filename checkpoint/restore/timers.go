package restore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"

	core "github.com/checkpoint-restore/go-criu/v8/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v8/crit/images/timer"
	"google.golang.org/protobuf/proto"
)

// filesImage is the image of the open files of all processes.
const filesImage = "files.img"

// repairTimers changes the CRIU images in a directory so that all timers continue. CRIU stops a periodic timerfd whose
// expiration was not read before the checkpoint. CRIU before 4.2 also stops timers of setitimer(2) and alarm(2) without
// an interval. The other entries of the images stay as they are, also entries that this version does not know.
// version is the version of CRIU.
func repairTimers(dir, version string) error {
	err := changeImage(path.Join(dir, filesImage), &fdinfo.FileEntry{}, armTimerfd)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w", filesImage, err)
	}
	if restoresOneShots(version) {
		return nil
	}
	cores, err := filepath.Glob(filepath.Join(dir, "core-*.img"))
	if err != nil {
		return err
	}
	for _, file := range cores {
		if err := changeImage(file, &core.CoreEntry{}, addIntervals); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
	}
	return nil
}

// restoresOneShots reports whether a version of CRIU restores timers of setitimer without an interval.
func restoresOneShots(version string) bool {
	var major, minor int
	_, err := fmt.Sscanf(version, "%d.%d", &major, &minor)
	return err == nil && (major > 4 || major == 4 && minor >= 2)
}

// never is an interval in seconds, 68 years. alarm(2) can return it on all architectures.
const never = math.MaxInt32

// addIntervals gives the interval never to each running timer of setitimer that has no interval, and reports whether
// the entry was changed. CRIU before 4.2 regards a timer as stopped if the interval is 0. The timer expires as
// without the interval. After the expiration, the process can see the interval with getitimer(2).
func addIntervals(e *core.CoreEntry) (changed bool) {
	timers := e.GetTc().GetTimers()
	for _, t := range []*timer.ItimerEntry{timers.GetReal(), timers.GetVirt(), timers.GetProf()} {
		if t.GetVsec() == 0 && t.GetVusec() == 0 || t.GetIsec() != 0 || t.GetIusec() != 0 {
			continue
		}
		t.Isec = proto.Uint64(never)
		changed = true
	}
	return changed
}

// armTimerfd arms a periodic timerfd that had expired at the checkpoint and whose expirations no process has read.
// Until a process reads the expirations, the kernel reports 0 as the remaining time. CRIU restores this 0, which
// disarms the timer. armTimerfd sets the remaining time to the period, and reports whether the timerfd was changed.
func armTimerfd(e *fdinfo.FileEntry) bool {
	t := e.GetTfd()
	if t.GetTicks() == 0 || t.GetVsec() != 0 || t.GetVnsec() != 0 || t.GetIsec() == 0 && t.GetInsec() == 0 {
		return false
	}
	t.Vsec, t.Vnsec = t.Isec, t.Insec
	return true
}

// changeImage decodes each entry of an image into e, and replaces the image if change has changed an entry.
func changeImage[T proto.Message](file string, e T, change func(T) bool) error {
	decode := func(raw []byte) (bool, error) {
		if err := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(raw, e); err != nil {
			return false, invalid("decode entry: %v", err)
		}
		return change(e), nil
	}
	found := false
	err := scanImage(file, func(raw []byte) error {
		changed, err := decode(raw)
		found = found || changed
		return err
	})
	if err != nil || !found {
		return err
	}
	temporary := file + ".new"
	err = copyImage(temporary, file, func(raw []byte) ([]byte, error) {
		if changed, err := decode(raw); err != nil || !changed {
			return raw, err
		}
		return proto.MarshalOptions{AllowPartial: true}.Marshal(e)
	})
	if err == nil {
		err = os.Rename(temporary, file)
	}
	return err
}

// copyImage writes the image to, with the entries that convert returns for the entries of the image from.
func copyImage(to, from string, convert func(raw []byte) ([]byte, error)) (err error) {
	header := make([]byte, imageHeader)
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	_, err = io.ReadFull(in, header)
	if err := errors.Join(err, in.Close()); err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := bufio.NewWriter(out)
	if _, err := w.Write(header); err != nil {
		return err
	}
	err = scanImage(from, func(raw []byte) error {
		raw, err := convert(raw)
		if err != nil {
			return err
		}
		if err := binary.Write(w, binary.LittleEndian, uint32(len(raw))); err != nil { //nolint:gosec // at most a little more than maxEntry
			return err
		}
		_, err = w.Write(raw)
		return err
	})
	return errors.Join(err, w.Flush())
}
