// Package images makes the container images that the tests, the benchmarks and the demo run, and serves them from a registry on
// loopback: nothing that is tested depends on a registry far away.
//
// The images are put together from Debian packages (busybox-static, nginx) and from two small Go programs under guest/. They carry the
// names under which the CRI validation suite asks for them; the project's own ones live under registry.test. Every image is the same
// bytes on each build from the same packages and sources.
package images
