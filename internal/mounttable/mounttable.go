// Package mounttable reads the mount table of the calling thread. It reads tables that the parser of mountinfo
// refuses, because an overlay mount with hundreds of layers has a line longer than 64 KiB.
package mounttable

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// maxLine is the length in bytes up to which a line is passed on unchanged. The parser accepts 64 KiB.
const maxLine = 48 << 10

// Read returns the mounts in the mount namespace of the calling thread that match the filter, in the order of the
// table. The options of a mount with a very long line lack the lower directories of its overlay.
func Read(filter mountinfo.FilterFunc) ([]*mountinfo.Info, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parse(f, filter)
}

func parse(table io.Reader, filter mountinfo.FilterFunc) ([]*mountinfo.Info, error) {
	var short bytes.Buffer
	r := bufio.NewReader(table)
	for {
		line, err := r.ReadString('\n')
		short.WriteString(shorten(line))
		if errors.Is(err, io.EOF) {
			return mountinfo.GetMountsFromReader(&short, filter)
		}
		if err != nil {
			return nil, err
		}
	}
}

// shorten removes the lower directories of an overlay from a line that is too long for the parser. If the line is
// still too long, shorten removes its end, which is part of the options of the file system.
func shorten(line string) string {
	if len(line) <= maxLine {
		return line
	}
	line = strings.TrimSuffix(line, "\n")
	if options := strings.LastIndexByte(line, ' ') + 1; options > 0 {
		kept := slices.DeleteFunc(strings.Split(line[options:], ","), func(option string) bool {
			return strings.HasPrefix(option, "lowerdir")
		})
		line = line[:options] + strings.Join(kept, ",")
	}
	return line[:min(len(line), maxLine)] + "\n"
}
