package config

import (
	"path/filepath"
	"regexp"
	"strings"
)

// ZoneinfoDir is the directory with the files of the time zones of the host.
const ZoneinfoDir = "/usr/share/zoneinfo"

// zoneName matches the names of the time zone database, for example America/Argentina/Ushuaia and Etc/GMT+1.
var zoneName = regexp.MustCompile(`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$`)

// isTimezone reports whether name can be the value of container.timezone.
func isTimezone(name string) bool { return name == "" || zoneName.MatchString(name) }

// TimezoneFile returns the path of the file of a time zone on the host: /etc/localtime for "local" in upper or lower
// case, and otherwise a file in ZoneinfoDir. It returns "" for an empty name.
func TimezoneFile(name string) string {
	switch {
	case name == "":
		return ""
	case strings.EqualFold(name, "local"):
		return "/etc/localtime"
	}
	return filepath.Join(ZoneinfoDir, name)
}
