package network

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestDescribe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "10-a.conflist")
	conf := `{"cniVersion":"1.1.0","name":"a","plugins":[
		{"type":"bridge","bridge":"cni0","ipam":{"type":"host-local","subnet":"10.1.0.0/16","ranges":[[{"subnet":"10.2.0.0/16"}],[{"subnet":"fd00::/64"}]]}},
		{"type":"portmap"},{"type":"odd","bridge":7}]}`
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := Describe(file)
	want := Description{
		Name: "a", Plugins: []string{"bridge", "host-local", "portmap", "odd"}, Bridges: []string{"cni0"},
		Subnets: []string{"10.1.0.0/16", "10.2.0.0/16", "fd00::/64"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if err := os.WriteFile(file, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Describe(file); err == nil {
		t.Error("an invalid file: got no error")
	}
}
