package mountopt

import "testing"

func TestContext(t *testing.T) {
	const label = "system_u:object_r:container_file_t:s0:c1,c2"
	if got, want := Context(label), `context="system_u:object_r:container_file_t:s0:c1,c2"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
