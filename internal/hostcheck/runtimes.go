package hostcheck

import "strings"

// checkRuntimes runs each OCI runtime, and looks for known vulnerabilities of its version.
func checkRuntimes(c *checker) {
	found := false
	for _, r := range c.Runtimes {
		switch {
		case r.Path == "" || !c.host.isExecutable(r.Path):
			c.report("runtimes.missing", "the runtime handler %s has no executable file %s", r.Handler, r.Path)
			continue
		default:
			found = true
		}
		out, err := c.host.Run(c.ctx, c.host.path(r.Path), "--version")
		line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
		switch {
		case err != nil:
			c.report("runtimes.broken", "%s --version of the runtime handler %s: %v", r.Path, r.Handler, err)
		case line == "":
			c.report("runtimes.broken", "%s --version of the runtime handler %s prints nothing", r.Path, r.Handler)
		default:
			if flaw := c.Flaw(line); flaw != "" {
				c.report("runtimes.vulnerable", "%s of the runtime handler %s: %s", r.Path, r.Handler, flaw)
			}
		}
	}
	if !found {
		c.report("runtimes.none", "no OCI runtime is installed")
	}
}
