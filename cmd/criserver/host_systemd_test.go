package main

import "testing"

func TestMonitorsBelow(t *testing.T) {
	for _, tc := range []struct{ unit, parent, want string }{
		{"/system.slice/criserver.service", "criserver.slice", "/system.slice/criserver.service/monitors"},
		{"/user.slice/user-0.slice/session-1.scope", "criserver.slice", "/user.slice/user-0.slice/session-1.scope/monitors"},
		{"", "criserver.slice", "/criserver-monitors"},
		{"", "/a/other.slice", "/other-monitors"},
	} {
		if got := monitorsBelow(tc.unit, tc.parent); got != tc.want {
			t.Errorf("unit %q, parent %q: %q, want %q", tc.unit, tc.parent, got, tc.want)
		}
	}
}
