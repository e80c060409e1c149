package bridge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/criserver/criserver/internal/oplock"
	"golang.org/x/sys/unix"
)

// leases is the directory of a network in which host-local keeps a file for
// each address in use, named by it, with the id of its pod and the interface.
type leases struct{ dir string }

// lease is an address with what belongs to it.
type lease struct {
	addr    netip.Prefix
	gateway netip.Addr
}

const (
	lineBreak  = "\r\n"
	lastPrefix = "last_reserved_ip."
	lockName   = "lock"
)

func leasesOf(c *conf) *leases { return &leases{dir: filepath.Join(c.IPAM.DataDir, c.Name)} }

// lock waits for the lock that host-local takes, too. Another process may hold it for
// as long as it likes, so the wait ends with the context. Calls of this process wait
// for each other first, in the order in which they came.
func (l *leases) lock(ctx context.Context, turns *oplock.Locks) (unlock func(), err error) {
	done, err := turns.Lock(ctx, l.dir)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(l.dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		done()
		return nil, err
	}
	if err := flock(ctx, f); err != nil {
		done()
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return func() { _ = f.Close(); done() }, nil
}

// maxLockPause bounds the pause between two tries to get a lock that another process
// holds.
const maxLockPause = 20 * time.Millisecond

func flock(ctx context.Context, f *os.File) error {
	for pause := time.Millisecond; ; pause = min(2*pause, maxLockPause) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("another process holds the lock: %w", context.Cause(ctx))
		}
	}
}

// reserve takes one address out of each set of ranges. It undoes itself.
func (l *leases) reserve(sets [][]subnet, owner string) (out []lease, err error) {
	for i, set := range sets {
		le, err := l.reserveOne(set, i, owner)
		if err != nil {
			return nil, errors.Join(err, l.release(out, owner))
		}
		out = append(out, le)
	}
	return out, nil
}

// reserveOne goes round all addresses of a set, from the one after the last
// that was given away, so that a freed address rests for as long as possible.
func (l *leases) reserveOne(set []subnet, id int, owner string) (lease, error) {
	i, addr := after(set, l.lastReserved(id))
	start := addr
	for first := true; first || addr != start; first = false {
		s := set[i]
		if addr != s.Gateway {
			switch err := l.take(addr, owner); {
			case err == nil:
				if err := os.WriteFile(l.lastFile(id), []byte(addr.String()), 0o600); err != nil {
					return lease{}, errors.Join(err, os.Remove(filepath.Join(l.dir, addr.String())))
				}
				return lease{netip.PrefixFrom(addr, s.Subnet.Bits()), s.Gateway}, nil
			case !errors.Is(err, fs.ErrExist):
				return lease{}, err
			}
		}
		i, addr = next(set, i, addr)
	}
	return lease{}, fmt.Errorf("no address is free in %s", set[0].Subnet)
}

func (l *leases) lastFile(id int) string { return filepath.Join(l.dir, lastPrefix+strconv.Itoa(id)) }

func (l *leases) lastReserved(id int) netip.Addr {
	b, err := os.ReadFile(l.lastFile(id))
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(strings.TrimSpace(string(b)))
	return a
}

// after returns the address after a, and the first of all when a is in none of
// the ranges.
func after(set []subnet, a netip.Addr) (int, netip.Addr) {
	for i, s := range set {
		if a.IsValid() && a.BitLen() == s.RangeStart.BitLen() && s.RangeStart.Compare(a) <= 0 && a.Compare(s.RangeEnd) <= 0 {
			return next(set, i, a)
		}
	}
	return 0, set[0].RangeStart
}

func next(set []subnet, i int, a netip.Addr) (int, netip.Addr) {
	if a != set[i].RangeEnd {
		return i, a.Next()
	}
	i = (i + 1) % len(set)
	return i, set[i].RangeStart
}

// take makes the file of an address. fs.ErrExist when it is in use.
func (l *leases) take(a netip.Addr, owner string) error {
	f, err := os.OpenFile(filepath.Join(l.dir, a.String()), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(owner)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// release frees addresses that are still their owner's.
func (l *leases) release(ls []lease, owner string) error {
	return l.drop(names(ls), func(o string) bool { return o == owner })
}

func names(ls []lease) []string {
	out := make([]string, len(ls))
	for i, le := range ls {
		out[i] = le.addr.Addr().String()
	}
	return out
}

// holds says whether the addresses are still their owner's.
func (l *leases) holds(ls []lease, owner string) error {
	for _, le := range ls {
		b, err := os.ReadFile(filepath.Join(l.dir, le.addr.Addr().String()))
		if err != nil {
			return fmt.Errorf("lease of %s: %w", le.addr.Addr(), err)
		}
		if strings.TrimSpace(string(b)) != owner {
			return fmt.Errorf("lease of %s is another pod's", le.addr.Addr())
		}
	}
	return nil
}

// all lists the addresses in use.
func (l *leases) all() ([]string, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if _, err := netip.ParseAddr(e.Name()); err == nil {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// find returns those of the named addresses whose owner match selects. It needs no
// lock; what is found can have another owner by the time the lock is held.
func (l *leases) find(names []string, match func(owner string) bool) (found []string, err error) {
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(l.dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if match(strings.TrimSpace(string(b))) {
			found = append(found, name)
		}
	}
	return found, nil
}

// drop frees those of the named addresses whose owner is to go. It is called with the
// lock held.
func (l *leases) drop(names []string, goes func(owner string) bool) error {
	var errs []error
	for _, name := range names {
		found, err := l.find([]string{name}, goes)
		if len(found) == 1 {
			err = os.Remove(filepath.Join(l.dir, name))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// owner is what the file of an address says.
func owner(id, ifName string) string { return id + lineBreak + ifName }
