package node

import "testing"

func TestToSemantic(t *testing.T) {
	for _, tc := range []struct{ linkerVersion, moduleVersion, want string }{
		{"v1.2.3", "", "1.2.3"},
		{"1.2.3", "v0.1.0", "1.2.3"},
		{"v1.2.3-4-g8eacc1c", "", "1.2.3-4-g8eacc1c"},
		{"v1.2.3-rc.1-dirty", "", "1.2.3-rc.1-dirty"},
		{"8eacc1c", "", "0.0.0-g8eacc1c"},
		{"0123456", "", "0.0.0-g0123456"},
		{"8eacc1c-dirty", "", "0.0.0-g8eacc1c-dirty"},
		{"unknown", "", "0.0.0-unknown"},
		{"", "v0.0.0-20261129175239-8eacc1c00000+dirty", "0.0.0-20261129175239-8eacc1c00000+dirty"},
		{"", "(devel)", "0.0.0-unknown"},
		{"", "", "0.0.0-unknown"},
		{"v1.2", "", "0.0.0-unknown"},
	} {
		got := toSemantic(tc.linkerVersion, tc.moduleVersion)
		if got != tc.want || !semantic.MatchString(got) {
			t.Errorf("toSemantic(%q, %q) = %q, want %q", tc.linkerVersion, tc.moduleVersion, got, tc.want)
		}
	}
	if v := SemanticVersion(""); !semantic.MatchString(v) {
		t.Errorf("the version %q of this binary is not a semantic version", v)
	}
}

func TestSemanticSyntax(t *testing.T) {
	for v, want := range map[string]bool{
		"0.1.0": true, "1.0.0-alpha.1+x.y": true, "1.0.0-0a": true,
		"8eacc1c": false, "1.0": false, "01.0.0": false, "1.0.0-01": false, "1.0.0-": false, "v1.0.0": false, "1.0.0 ": false,
	} {
		if got := semantic.MatchString(v); got != want {
			t.Errorf("semantic.MatchString(%q) = %v, want %v", v, got, want)
		}
	}
}
