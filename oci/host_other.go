//go:build !amd64

package oci

func x32() bool { return false }
