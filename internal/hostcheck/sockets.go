package hostcheck

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// checkSockets finds out whether other processes use the sockets of the daemon. While the daemon
// itself runs, its socket is in use, too, so the socket of the daemon is not checked.
func checkSockets(c *checker) {
	if c.NRISocket != "" && c.isListening(c.NRISocket) && !c.isListening(c.Socket) {
		c.report("network.nri_socket", "another process serves nri.socket %s", c.NRISocket)
	}
	addr, err := netip.ParseAddrPort(c.StreamAddress)
	if err == nil && addr.Port() != 0 && c.isPortInUse(addr) && !c.isListening(c.Socket) {
		c.report("network.stream_port", "another process uses streaming.address %s", c.StreamAddress)
	}
}

// isListening reports whether a process listens on a unix socket.
func (c *checker) isListening(path string) bool {
	sockets, _ := c.host.read("/proc/net/unix")
	// Num RefCount Protocol Flags Type St Inode Path; the flag 00010000 marks a listening socket.
	for line := range strings.Lines(sockets) {
		f := strings.Fields(line)
		if len(f) == 8 && f[3] == "00010000" && slices.Contains(aliases(path), f[7]) {
			return true
		}
	}
	return false
}

// aliases returns the spellings of a path below /run, which is a link at /var/run, too.
func aliases(path string) []string {
	if rest, found := strings.CutPrefix(path, "/var/run/"); found {
		return []string{path, "/run/" + rest}
	}
	if rest, found := strings.CutPrefix(path, "/run/"); found {
		return []string{path, "/var/run/" + rest}
	}
	return []string{path}
}

// isPortInUse reports whether a process listens on a TCP port of the address or of all addresses.
func (c *checker) isPortInUse(addr netip.AddrPort) bool {
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		sockets, _ := c.host.read(file)
		// sl local_address rem_address st …; an address is IP:PORT in hexadecimal digits, and the state 0A is LISTEN.
		for line := range strings.Lines(sockets) {
			f := strings.Fields(line)
			if len(f) < 4 || f[3] != "0A" {
				continue
			}
			ip, port, _ := strings.Cut(f[1], ":")
			n, err := strconv.ParseUint(port, 16, 16)
			if err != nil || uint16(n) != addr.Port() {
				continue
			}
			if strings.Trim(ip, "0") == "" || ip == procAddress(addr.Addr()) {
				return true
			}
		}
	}
	return false
}

// procAddress returns an address in the notation of /proc/net/tcp.
func procAddress(a netip.Addr) string {
	var b strings.Builder
	bytes := a.AsSlice()
	for i := 0; i+4 <= len(bytes); i += 4 {
		word := binary.NativeEndian.Uint32(bytes[i : i+4])
		b.WriteString(strings.ToUpper(strconv.FormatUint(uint64(word)|1<<32, 16)[1:]))
	}
	return b.String()
}

// otherRuntimes are the sockets and the processes of other container runtimes.
var otherRuntimes = []struct{ name, socket string }{
	{"containerd", "/run/containerd/containerd.sock"},
	{"CRI-O", "/run/crio/crio.sock"},
	{"cri-dockerd", "/run/cri-dockerd.sock"},
	{"Docker", "/run/docker.sock"},
}

// checkOtherRuntimes looks for other runtimes that may use the same CNI networks and host ports.
func checkOtherRuntimes(c *checker) {
	for _, r := range otherRuntimes {
		if c.isListening(r.socket) {
			c.report("network.other_runtime", "%s is running (%s)", r.name, r.socket)
		}
	}
}
