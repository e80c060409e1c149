package sandbox

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/criserver/criserver/internal/userns"
)

// pingGroups is the only sysctl of a network or IPC namespace whose value has ids of users or groups: the first and
// the last group that may open ICMP datagram sockets.
const pingGroups = "net/ipv4/ping_group_range"

// hostValue returns the value of a sysctl as the daemon has to write the value. The kernel reads ids in a value by the
// user namespace of the writer, which is the host's, and the pod means ids of its own user namespace.
func hostValue(path, value string, maps *userns.Maps) (string, error) {
	if maps == nil || path != pingGroups {
		return value, nil
	}
	first, last, err := groupRange(value)
	if err != nil || first > last { // a range that ends before it begins is empty for the kernel
		return value, err
	}
	m := maps.GIDs[0] // checkUserNamespace allows one mapping, from id 0
	if first >= uint64(m.Size) {
		return "", fmt.Errorf("group %d is not in the user namespace of the pod, which has %d groups", first, m.Size)
	}
	// "0 2147483647" is the usual way to allow all groups. The groups beyond the map do not exist in the pod.
	last = min(last, uint64(m.Size)-1)
	return fmt.Sprintf("%d %d", uint64(m.HostID)+first, uint64(m.HostID)+last), nil
}

func groupRange(value string) (first, last uint64, err error) {
	fields := strings.Fields(value)
	if len(fields) != 2 {
		return 0, 0, fmt.Errorf("%q must be the first and the last group", value)
	}
	for i, to := range []*uint64{&first, &last} {
		// The kernel takes hexadecimal and octal numbers too. ParseUint takes underscores besides.
		if *to, err = strconv.ParseUint(fields[i], 0, 32); err != nil || strings.Contains(fields[i], "_") {
			return 0, 0, fmt.Errorf("%q is not the number of a group", fields[i])
		}
	}
	return first, last, nil
}
