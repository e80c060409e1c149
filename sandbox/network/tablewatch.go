package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// replaceTime is how long after the deletion of a table its replacement may be
	// announced. A transaction that replaces a table announces both, one by one.
	replaceTime = 20 * time.Millisecond
	// overflowPause follows the loss of events, so that a storm of changes by others
	// does not have the tables checked all the time.
	overflowPause = time.Second

	sizeofNfgenmsg = 4 // struct nfgenmsg of linux/netfilter/nfnetlink.h
)

// watchTables listens to the changes of the rule set and fills deleted, of capacity
// one, after the deletion of a table with one of our names. It ends with ctx.
func watchTables(ctx context.Context, deleted chan<- struct{}) error {
	f, err := openEvents()
	if err != nil {
		return err
	}
	defer f.Close()
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })()
	tell := func() {
		select {
		case deleted <- struct{}{}:
		default:
		}
	}
	buf, gone := make([]byte, 64<<10), map[string]bool{}
	for ctx.Err() == nil {
		n, err := f.Read(buf)
		switch {
		case err == nil:
			waiting := len(gone) > 0
			noteTables(buf[:n], gone)
			if len(gone) > 0 && !waiting {
				err = f.SetReadDeadline(time.Now().Add(replaceTime))
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			if len(gone) > 0 {
				clear(gone)
				tell()
			}
			err = f.SetReadDeadline(time.Time{})
		case errors.Is(err, unix.ENOBUFS): // events are lost
			tell()
			pause(ctx, overflowPause)
			err = nil
		}
		if err != nil {
			return fmt.Errorf("events of nftables: %w", err)
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func openEvents() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("events of nftables: %w", err)
	}
	f := os.NewFile(uintptr(fd), "nftables")
	if err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("events of nftables: %w", err), f.Close())
	}
	return f, nil
}

// noteTables goes through a datagram of events and adds to gone the tables with one of
// our names that were deleted, or takes out those that were made.
func noteTables(b []byte, gone map[string]bool) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return
		}
		kind, body := binary.NativeEndian.Uint16(b[4:]), b[unix.SizeofNlMsghdr:size]
		b = b[min((size+3)&^3, len(b)):]
		isNew, isDeleted := kind == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE, kind == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELTABLE
		if !isNew && !isDeleted {
			continue
		}
		name := tableName(body)
		switch {
		case !strings.HasPrefix(name, masqueradePrefix) && !strings.HasPrefix(name, hostPortsPrefix):
		case isNew:
			delete(gone, name)
		default:
			gone[name] = true
		}
	}
}

// tableName reads struct nfgenmsg and the attribute NFTA_TABLE_NAME. It returns "" for
// tables of other families than inet.
func tableName(b []byte) string {
	if len(b) < sizeofNfgenmsg || b[0] != unix.NFPROTO_INET {
		return ""
	}
	for b = b[sizeofNfgenmsg:]; len(b) >= unix.SizeofRtAttr; {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return ""
		}
		if binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED == unix.NFTA_TABLE_NAME {
			return strings.TrimRight(string(b[unix.SizeofRtAttr:size]), "\x00")
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return ""
}
