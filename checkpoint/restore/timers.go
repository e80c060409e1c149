package restore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/checkpoint-restore/go-criu/v8/crit/images/fdinfo"
	"google.golang.org/protobuf/proto"
)

// filesImage is the image of the open files of all processes.
const filesImage = "files.img"

// repairTimers changes the CRIU images in a directory so that each periodic timerfd continues. CRIU stops a timerfd
// whose expiration was not read before the checkpoint. The other entries of the image stay as they are, also entries
// that this version does not know.
func repairTimers(dir string) error {
	err := changeFiles(path.Join(dir, filesImage), armTimerfd)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", filesImage, err)
	}
	return nil
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

// changeFiles replaces an image of open files if change has changed an entry.
func changeFiles(file string, change func(*fdinfo.FileEntry) bool) error {
	var e fdinfo.FileEntry
	decode := func(raw []byte) (bool, error) {
		if err := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(raw, &e); err != nil {
			return false, invalid("decode entry: %v", err)
		}
		return change(&e), nil
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
		return proto.MarshalOptions{AllowPartial: true}.Marshal(&e)
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
