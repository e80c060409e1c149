// Package harness has the parts that the black-box suites share: namespaces that
// look like a machine, a daemon with private directories, and the search for
// leaks. It uses the command line of the daemon and none of its packages. The
// environment variable CRISERVER_TEST_PATIENCE multiplies all deadlines of the
// suites; see Patience.
package harness
