package images

import (
	"fmt"
	"strings"
)

// Prefixes are the prefixes of the names of the test images.
var Prefixes = []string{
	"registry.k8s.io", "k8s.gcr.io", "gcr.io", "registry.test", "docker.io/library/busybox", "docker.io/library/nginx",
}

// RegistriesConf returns a registries.conf that redirects the given prefixes, or all of Prefixes if
// none is given, to the registry at addr, over plain HTTP. It does not affect other names.
func RegistriesConf(addr string, prefixes ...string) string {
	if len(prefixes) == 0 {
		prefixes = Prefixes
	}
	var b strings.Builder
	b.WriteString("unqualified-search-registries = [\"docker.io\"]\n")
	for _, p := range prefixes {
		fmt.Fprintf(&b, "\n[[registry]]\nprefix = %q\nlocation = %q\ninsecure = true\n", p, addr+"/"+p)
	}
	fmt.Fprintf(&b, "\n[[registry]]\nlocation = %q\ninsecure = true\n", addr)
	return b.String()
}
