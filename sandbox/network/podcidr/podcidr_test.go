package podcidr

import (
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestParse(t *testing.T) {
	v4, v6 := "0.0.0.0/0", "::/0"
	for in, want := range map[string]Data{
		"10.244.1.0/24":                               {"10.244.1.0/24", []string{"10.244.1.0/24"}, []string{v4}},
		"10.244.1.7/24":                               {"10.244.1.0/24", []string{"10.244.1.0/24"}, []string{v4}},
		"fd00:1::/64,10.244.1.0/24":                   {"fd00:1::/64", []string{"fd00:1::/64", "10.244.1.0/24"}, []string{v6, v4}},
		"10.244.1.0/24,10.244.2.0/24,fd00:0:0:1::/64": {"10.244.1.0/24", []string{"10.244.1.0/24", "10.244.2.0/24", "fd00:0:0:1::/64"}, []string{v4, v6}},
	} {
		ranges, err := Parse(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got := newData(ranges); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", in, got, want)
		}
	}
	for _, in := range []string{
		"10.244.1.0", "10.244.1.0/33", "10.244.1.0/24,", ",", "10.244.1.0/24, fd00::/64", "0.0.0.0/0", "a", "10.244.1.0/24\n", "fe80::%eth0/64",
		"::ffff:10.0.0.0/120", "10.0.0.0/024", strings.Repeat("10.0.0.0/8,", 16) + "10.0.0.0/8",
	} {
		if got, err := Parse(in); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
}
