package nat

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
	// replaceDelay is the maximum time between the events of a transaction that deletes a table and adds it again.
	replaceDelay = 20 * time.Millisecond
	// overflowPause follows the loss of events, so that many changes by other programs do not cause permanent checks.
	overflowPause = time.Second

	sizeofNfgenmsg = 4 // struct nfgenmsg of linux/netfilter/nfnetlink.h
)

// WatchTables receives the events of nftables until ctx ends. It sends to notify, which has
// capacity 1, when another program has deleted a table of the daemon.
func WatchTables(ctx context.Context, notify chan<- struct{}) error {
	f, err := openEvents()
	if err != nil {
		return err
	}
	defer f.Close()
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })()
	send := func() {
		select {
		case notify <- struct{}{}:
		default:
		}
	}
	buf, deleted := make([]byte, 64<<10), map[string]bool{}
	for ctx.Err() == nil {
		n, err := f.Read(buf)
		switch {
		case err == nil:
			waiting := len(deleted) > 0
			collectDeleted(buf[:n], deleted)
			if len(deleted) > 0 && !waiting {
				err = f.SetReadDeadline(time.Now().Add(replaceDelay))
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			if len(deleted) > 0 {
				clear(deleted)
				send()
			}
			err = f.SetReadDeadline(time.Time{})
		case errors.Is(err, unix.ENOBUFS): // events were lost
			send()
			pause(ctx, overflowPause)
			err = nil
		}
		if err != nil {
			return fmt.Errorf("receive events of nftables: %w", err)
		}
	}
	return nil
}

// pause sleeps until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// openEvents opens a netlink socket that receives the events of nftables.
func openEvents() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("receive events of nftables: %w", err)
	}
	f := os.NewFile(uintptr(fd), "nftables")
	if err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("receive events of nftables: %w", err), f.Close())
	}
	return f, nil
}

// collectDeleted reads a datagram with events. It adds the deleted tables of the daemon to the set
// deleted, and removes the tables that were added again.
func collectDeleted(b []byte, deleted map[string]bool) {
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
			delete(deleted, name)
		default:
			deleted[name] = true
		}
	}
}

// tableName reads struct nfgenmsg and the attribute NFTA_TABLE_NAME. It returns "" if the family of
// the table is not inet.
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
