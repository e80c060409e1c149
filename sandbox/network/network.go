// Package network attaches pods to the default network through CNI plugins. It
// owns the loaded network configuration and the calls of plugins, and keeps no
// state of pods: what is needed to detach one is handed out and taken back.
package network

// Config says where CNI configuration and plugins are.
type Config struct {
	// ConfDirs are searched in order; /etc/cni/net.d by default.
	ConfDirs []string
	// BinDirs are where plugins are looked for, in order; /opt/cni/bin by default.
	BinDirs []string
	// DefaultNetwork is the name of the network for pods; by default the first
	// valid one in the order of file names.
	DefaultNetwork string
	// CacheDir is where results of ADD are kept for DEL.
	CacheDir string
}
