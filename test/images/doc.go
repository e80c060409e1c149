// Package images builds the container images that the tests, the benchmarks and the demo run, and serves them from a
// registry on loopback, so that no test depends on a public registry.
//
// The images contain Debian packages (busybox-static, nginx) and three small Go programs from guest/. They have the
// names that the CRI validation suite uses; images of this project have names below registry.test. Builds are
// reproducible: the same packages and sources give the same bytes.
package images
