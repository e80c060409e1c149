package archive

import (
	"bytes"
	"testing"
)

// must ends the test after an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testKey is the key of the archives and manifests in the tests.
var testKey = Key(bytes.Repeat([]byte{1}, keySize))
