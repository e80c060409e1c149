package harness

import "testing"

func TestPatienceFactor(t *testing.T) {
	for value, want := range map[string]float64{"": 1, "1": 1, "2.5": 2.5, "1000": 1000} {
		if got := readPatience(value); got != want {
			t.Errorf("readPatience(%q) = %v, want %v", value, got, want)
		}
	}
	for _, value := range []string{"0", "0.5", "-1", "x", "NaN", "1001", "Inf"} {
		t.Run(value, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Errorf("readPatience(%q) did not panic", value)
				}
			}()
			readPatience(value)
		})
	}
}
