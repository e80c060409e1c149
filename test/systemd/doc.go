// Package systemd holds the suite for life under systemd: it installs criserver
// on a host as docs/install.md describes, and restarts, kills, upgrades and
// reboots it while containers run.
//
// The suite changes the host that it runs on. It runs only on a host that has
// the file /etc/criserver-test-guest, as root, in the source tree with a
// complete bin/ directory and test images in .cache/images. It needs neither Go
// nor a network, so the compiled test binary can be copied to a guest:
//
//	systemd.test -test.v -test.run 'TestInstall|TestLife|TestMonitors|TestBeforeReboot'
//	systemctl reboot
//	systemd.test -test.v -test.run 'TestAfterReboot|TestRemove'
//	systemd.test -test.v -test.run '^TestPackage$'
//
// The tests of the first two commands use one installation and run in the order of
// this list, which is the order of the names of their files. TestPackage needs a host
// without an installation, and the package that "make deb" has built.
package systemd
