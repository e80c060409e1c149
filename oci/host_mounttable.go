package oci

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"

	"github.com/moby/sys/mountinfo"
)

// maxMountLine is how much is read of a line of the mount table. Paths and
// options of the mount itself fit in, with every byte of them escaped; last come
// the file system's options, which nothing here looks at and which are longer
// than what mountinfo takes when an overlay has hundreds of layers.
const maxMountLine = 48 << 10

// hostMounts returns the mounts that the filter lets through.
func hostMounts(filter mountinfo.FilterFunc) ([]*mountinfo.Info, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readMounts(f, filter)
}

func readMounts(from io.Reader, filter mountinfo.FilterFunc) ([]*mountinfo.Info, error) {
	var table bytes.Buffer
	r := bufio.NewReaderSize(from, maxMountLine)
	for {
		line, err := r.ReadSlice('\n')
		table.Write(line)
		cut := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		if cut {
			table.WriteByte('\n')
		}
		if errors.Is(err, io.EOF) {
			return mountinfo.GetMountsFromReader(&table, filter)
		}
		if err != nil {
			return nil, err
		}
	}
}
