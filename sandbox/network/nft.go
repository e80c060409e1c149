package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// nftTimeout bounds a call of nft. A call takes a few milliseconds on an idle
// machine; under emulation, the first one, which loads kernel modules, takes
// more than five seconds.
const nftTimeout = time.Minute

// tableExists reports whether nft lists a table. An error says that nft did not
// end in time: the table may exist then.
func tableExists(ctx context.Context, name string) (bool, error) {
	err := nft(ctx, nil, "list", "table", "inet", name)
	if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return false, err
	}
	return err == nil, nil
}

// deleteTable deletes a table, if there is one.
func deleteTable(ctx context.Context, name string) error {
	return nft(ctx, fmt.Appendf(nil, "add table inet %[1]s\ndelete table inet %[1]s\n", name), "-f", "-")
}

func nft(ctx context.Context, stdin []byte, args ...string) error {
	return nftWithin(ctx, nftTimeout, stdin, args...)
}

// nftWithin runs nft. If nft does not end within the given time, it is killed and
// the error is context.DeadlineExceeded.
func nftWithin(ctx context.Context, within time.Duration, stdin []byte, args ...string) error {
	limited, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	cmd := exec.CommandContext(limited, nftPath(), args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var words bounded
	cmd.Stdout, cmd.Stderr = nil, &words
	err := runTied(cmd)
	if err == nil {
		return nil
	}
	name := "nft " + strings.Join(args, " ")
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", name, context.Cause(ctx))
	case limited.Err() != nil:
		return fmt.Errorf("%s has not ended within %s: %w", name, within, limited.Err())
	}
	return errors.Join(fmt.Errorf("%s: %w", name, err), errors.New(quote(words.kept.Bytes())))
}

// nftPath finds nft also where services have a short PATH.
func nftPath() string {
	for _, name := range []string{"nft", "/usr/sbin/nft", "/sbin/nft"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return "nft"
}
