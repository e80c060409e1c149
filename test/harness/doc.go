// Package harness is what the black-box suites share: namespaces of their own
// that look like a machine, a daemon on directories of its own, and the search
// for what it left behind. It knows the daemon's command line and nothing of
// its code. The environment variable CRISERVER_TEST_PATIENCE multiplies all
// deadlines of the suites: see Patience.
package harness
