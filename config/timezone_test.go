package config

import "testing"

// TestTimezone checks which names of time zones are valid, and which files they stand for. No name may lead out of the
// directory of the time zones.
func TestTimezone(t *testing.T) {
	for name, want := range map[string]string{
		"": "", "local": "/etc/localtime", "Local": "/etc/localtime", "UTC": "/usr/share/zoneinfo/UTC",
		"Europe/Berlin": "/usr/share/zoneinfo/Europe/Berlin", "America/Argentina/Ushuaia": "/usr/share/zoneinfo/America/Argentina/Ushuaia",
		"Etc/GMT+1": "/usr/share/zoneinfo/Etc/GMT+1",
	} {
		if got := TimezoneFile(name); got != want || !isTimezone(name) {
			t.Errorf("%q: got the file %q, valid: %t; want %q and a valid name", name, got, isTimezone(name), want)
		}
	}
	for _, name := range []string{"..", "../shadow", "/etc/shadow", "Europe/../x", "Europe/", "Europe//Berlin", "a/b/c/d", "Europe Berlin", "a\x00"} {
		if isTimezone(name) {
			t.Errorf("%q: got a valid name, want an invalid one", name)
		}
	}
}
