package command

import (
	"io"
	"os"

	"github.com/vbauerster/mpb/v8"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// defaultColumns is the width of a terminal that does not know its size.
const defaultColumns = 80

// BarOptions returns the options of the bars on a terminal. Some terminals report the size 0x0: serial consoles, and
// those that script(1) makes when its standard input is not a terminal. The library mpb draws no bar on a terminal
// without rows. For these terminals BarOptions sets a width and hides the terminal from mpb, so that mpb does not ask
// for its size.
func BarOptions(f *os.File) []mpb.ContainerOption {
	width, height, err := term.GetSize(int(f.Fd()))
	if err == nil && width > 0 && height > 0 {
		return []mpb.ContainerOption{mpb.WithOutput(f)}
	}
	return []mpb.ContainerOption{
		mpb.WithOutput(struct{ io.Writer }{f}), mpb.ForceTTY(), mpb.WithAutoRefresh(), mpb.WithWidth(defaultColumns),
	}
}
