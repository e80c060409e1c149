package bridge

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// leases is the directory of a network in which host-local keeps a file for
// each address in use, named by it, with the id of its pod and the interface.
type leases struct {
	dir string
	// free ends the lock that host-local takes, too.
	free func()
}

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

func openLeases(c *conf) (*leases, error) {
	dir := filepath.Join(c.IPAM.DataDir, c.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", lock.Name(), err), lock.Close())
	}
	return &leases{dir: dir, free: func() { _ = lock.Close() }}, nil
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
				err = os.WriteFile(l.lastFile(id), []byte(addr.String()), 0o600)
				return lease{netip.PrefixFrom(addr, s.Subnet.Bits()), s.Gateway}, err
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
	var errs []error
	for _, le := range ls {
		errs = append(errs, l.drop(le.addr.Addr().String(), func(o string) bool { return o == owner }))
	}
	return errors.Join(errs...)
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

// releaseAll frees every address whose owner is to go.
func (l *leases) releaseAll(goes func(owner string) bool) error {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if _, err := netip.ParseAddr(e.Name()); err == nil {
			errs = append(errs, l.drop(e.Name(), goes))
		}
	}
	return errors.Join(errs...)
}

func (l *leases) drop(name string, goes func(owner string) bool) error {
	path := filepath.Join(l.dir, name)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !goes(strings.TrimSpace(string(b))) {
		return nil
	}
	return os.Remove(path)
}

// owner is what the file of an address says.
func owner(id, ifName string) string { return id + lineBreak + ifName }
