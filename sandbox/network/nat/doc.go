// Package nat translates the addresses of pods with nftables: it masquerades the subnets of pods and
// maps host ports to pods. It owns the tables of the daemon, and the files that say which tables the
// daemon has created. It knows networks only by their names, and does not read CNI configuration.
package nat
