package bridge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend"
	"github.com/criserver/criserver/internal/flock"
	"github.com/criserver/criserver/internal/oplock"
)

// lease is a leased address.
type lease struct {
	addr    netip.Prefix
	gateway netip.Addr
}

// leaseDir is the directory in which host-local keeps the leases of a network. The directory has a file for each leased
// address. The name of the file is the address, its content is the owner.
type leaseDir string

// lockName is the name of the lock file that host-local uses, too.
const lockName = "lock"

func (c *conf) leaseDir() leaseDir { return leaseDir(filepath.Join(c.IPAM.DataDir, c.Name)) }

func (d leaseDir) file(name string) string { return filepath.Join(string(d), name) }

// owner returns the content of the lease files of an interface.
func owner(id, ifName string) string { return id + "\r\n" + ifName }

// lock locks the leases against changes by this process and by host-local. Another process may hold
// the lock for any time, so the wait ends with the context. Calls of this process wait for each
// other first, in the order of their arrival.
func (d leaseDir) lock(ctx context.Context, locks *oplock.Locks) (unlock func(), err error) {
	release, err := locks.Lock(ctx, string(d))
	if err != nil {
		return nil, err
	}
	f, err := flock.Open(ctx, d.file(lockName))
	if err != nil {
		release()
		return nil, err
	}
	return func() { _ = f.Close(); release() }, nil
}

// lockedStore is the store for the allocator of host-local. The caller holds the lock of the directory.
//
// The package disk of host-local is not used: it waits for the lock without a deadline, opens the lock file without
// close-on-exec, so that processes of the daemon would inherit it, and reads all leases at each ADD and DEL.
type lockedStore struct{ leaseDir }

var _ backend.Store = lockedStore{}

// lastPrefix begins the names of the files with the address that was leased last, one file for each set of ranges.
const lastPrefix = "last_reserved_ip."

// Lock does nothing, because the caller holds the lock.
func (lockedStore) Lock() error { return nil }

// Unlock does nothing, because the caller holds the lock.
func (lockedStore) Unlock() error { return nil }

// Close does nothing, because the store has no open file.
func (lockedStore) Close() error { return nil }

// Reserve leases an address to an interface. ok is false if the address is leased already.
func (s lockedStore) Reserve(id, ifName string, ip net.IP, rangeID string) (ok bool, err error) {
	f, err := os.OpenFile(s.file(ip.String()), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = f.WriteString(owner(id, ifName))
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.WriteFile(s.file(lastPrefix+rangeID), []byte(ip.String()), 0o600)
	}
	if err != nil {
		return false, errors.Join(err, os.Remove(f.Name()))
	}
	return true, nil
}

// LastReservedIP returns the address that was leased last from a set of ranges. The allocator
// begins its search with the next address, so that a freed address stays unused for as long as
// possible.
func (s lockedStore) LastReservedIP(rangeID string) (net.IP, error) {
	b, err := os.ReadFile(s.file(lastPrefix + rangeID))
	if err != nil {
		return nil, err
	}
	return net.ParseIP(strings.TrimSpace(string(b))), nil
}

// ReleaseByID frees the addresses of an interface.
func (s lockedStore) ReleaseByID(id, ifName string) error {
	all, err := s.all()
	if err != nil {
		return err
	}
	return s.remove(all, isOwner(owner(id, ifName)))
}

// GetByID returns no addresses. The allocator refuses a second ADD for an interface that has addresses, for which it
// would have to read all leases. The sandbox package runs DEL before it runs ADD again.
func (lockedStore) GetByID(string, string) []net.IP { return nil }

func prefixOf(n net.IPNet) netip.Prefix {
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}

func isOwner(owner string) func(string) bool { return func(o string) bool { return o == owner } }

func names(leases []lease) []string {
	out := make([]string, len(leases))
	for i, l := range leases {
		out[i] = l.addr.Addr().String()
	}
	return out
}

// checkOwner returns an error unless all addresses are leased to an owner.
func (d leaseDir) checkOwner(leases []lease, owner string) error {
	for _, name := range names(leases) {
		b, err := os.ReadFile(d.file(name))
		if err != nil {
			return fmt.Errorf("read the lease of %s: %w", name, err)
		}
		if strings.TrimSpace(string(b)) != owner {
			return fmt.Errorf("address %s is leased to another pod", name)
		}
	}
	return nil
}

// all returns all leased addresses.
func (d leaseDir) all() ([]string, error) {
	entries, err := os.ReadDir(string(d))
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

// find returns the names of the leases whose owner match accepts. Without the lock, the owner can change
// afterwards.
func (d leaseDir) find(names []string, match func(owner string) bool) (found []string, err error) {
	for _, name := range names {
		b, err := os.ReadFile(d.file(name))
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

// remove removes the leases with the names, if match accepts their owners. The caller holds the lock.
func (d leaseDir) remove(names []string, match func(owner string) bool) error {
	var errs []error
	for _, name := range names {
		found, err := d.find([]string{name}, match)
		if len(found) == 1 {
			err = os.Remove(d.file(name))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
