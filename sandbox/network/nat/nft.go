package nat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/criserver/criserver/sandbox/network/program"
)

// Timeout bounds a call of nft. A call takes a few milliseconds on an idle machine. On an
// emulated machine the first call, which loads kernel modules, takes more than five seconds.
const Timeout = time.Minute

// tableExists reports whether a table exists. The error says that nft did not end before the
// timeout, so that the table may exist.
func tableExists(ctx context.Context, name string) (bool, error) {
	err := runNFT(ctx, nil, "list", "table", "inet", name)
	if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return false, err
	}
	return err == nil, nil
}

// deleteTable deletes a table if the table exists.
func deleteTable(ctx context.Context, name string) error {
	return runNFT(ctx, fmt.Appendf(nil, "add table inet %[1]s\ndelete table inet %[1]s\n", name), "-f", "-")
}

// runNFT executes nft with the default timeout.
func runNFT(ctx context.Context, stdin []byte, args ...string) error {
	return runNFTTimeout(ctx, Timeout, stdin, args...)
}

// runNFTTimeout executes nft. After the timeout it kills nft and returns context.DeadlineExceeded.
func runNFTTimeout(ctx context.Context, timeout time.Duration, stdin []byte, args ...string) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(limited, program.Path("nft"), args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr program.Output
	cmd.Stdout, cmd.Stderr = nil, &stderr
	err := program.Run(cmd)
	if err == nil {
		return nil
	}
	name := "nft " + strings.Join(args, " ")
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", name, context.Cause(ctx))
	case limited.Err() != nil:
		return fmt.Errorf("%s: timeout after %s: %w", name, timeout, limited.Err())
	}
	return errors.Join(fmt.Errorf("%s: %w", name, err), errors.New(program.Quote(stderr.Bytes())))
}
