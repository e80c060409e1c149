package nat

import (
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// event returns the event of a table.
func event(kind uint16, family byte, name string) []byte {
	body := append([]byte{family, 0, 0, 0}, attribute(2, "flags")...)
	body = append(body, attribute(unix.NFTA_TABLE_NAME, name)...)
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, unix.NFNL_SUBSYS_NFTABLES<<8|kind)
	return append(append(b, make([]byte, 10)...), body...)
}

// attribute returns a netlink attribute with a string.
func attribute(kind uint16, s string) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(s)+1))
	b = append(binary.NativeEndian.AppendUint16(b, kind), s...)
	return append(b, make([]byte, 4-len(s)%4)...)
}

func TestCollectDeleted(t *testing.T) {
	const inet, ip = unix.NFPROTO_INET, unix.NFPROTO_IPV4
	table, other := masqueradePrefix+"n", hostPortsPrefix+"net"
	for name, tt := range map[string]struct {
		events [][]byte
		want   []string
	}{
		"deleted":  {[][]byte{event(unix.NFT_MSG_DELTABLE, inet, table), event(unix.NFT_MSG_DELTABLE, inet, other)}, []string{other, table}},
		"replaced": {[][]byte{event(unix.NFT_MSG_DELTABLE, inet, table), event(unix.NFT_MSG_DELTABLE, inet, other), event(unix.NFT_MSG_NEWTABLE, inet, table)}, []string{other}},
		"others":   {[][]byte{event(unix.NFT_MSG_DELTABLE, inet, "filter"), event(unix.NFT_MSG_DELTABLE, ip, table), event(unix.NFT_MSG_DELRULE, inet, table)}, nil},
	} {
		deleted := map[string]bool{}
		all := slices.Concat(tt.events...)
		collectDeleted(all, deleted)
		if got := slices.Sorted(maps.Keys(deleted)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
		for i := range all { // truncated events must not cause a panic
			collectDeleted(all[:i], deleted)
		}
	}
}

func FuzzCollectDeleted(f *testing.F) {
	f.Add(event(unix.NFT_MSG_DELTABLE, unix.NFPROTO_INET, masqueradePrefix+"n"))
	f.Fuzz(func(_ *testing.T, b []byte) { collectDeleted(b, map[string]bool{}) })
}
