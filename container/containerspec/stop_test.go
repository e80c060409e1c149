package containerspec

import (
	"testing"
	"time"
)

func TestGracePeriod(t *testing.T) {
	of := func(v string) map[string]string { return map[string]string{GracePeriodKey: v} }
	for name, tc := range map[string]struct {
		from []map[string]string
		want time.Duration
	}{
		"none":             {[]map[string]string{nil, {"other": "1"}}, 30 * time.Second},
		"of the container": {[]map[string]string{of("5"), nil, of("7")}, 5 * time.Second},
		"of the pod":       {[]map[string]string{nil, nil, of("7")}, 7 * time.Second},
		"no number":        {[]map[string]string{of("soon"), of("9")}, 9 * time.Second},
		"too large":        {[]map[string]string{of("99999999999999999999")}, 30 * time.Second},
		"zero":             {[]map[string]string{of("0")}, 0},
	} {
		if got := gracePeriod(tc.from...); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}
