package inspect

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"github.com/criserver/criserver/sandbox/network/program"
)

// maxRules bounds the output of listRules in bytes. The rules of ten thousand services take about ten megabytes.
const maxRules = 64 << 20

// listRules executes a program that lists rules, and returns its output. The error is exec.ErrNotFound if the program
// is not installed.
func listRules(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program.Path(name), args...)
	stdout, stderr := program.Output{Limit: maxRules}, program.Output{}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := program.Run(cmd)
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case err == nil && stdout.Truncated():
		err = fmt.Errorf("the output has more than %d bytes", maxRules)
	case err != nil && len(stderr.Bytes()) > 0:
		err = fmt.Errorf("%w: %s", err, program.Quote(stderr.Bytes()))
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return stdout.Bytes(), nil
}
