package runtime

import (
	"os"
	"testing"
	"time"
)

// TestOutputIsReadAfterTheDeadline has a reader that gets no CPU until the deadline
// has passed, while another process keeps the pipe open.
func TestOutputIsReadAfterTheDeadline(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	const words = "written before the end"
	if _, err := w.WriteString(words); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	b := &limitedBuffer{limit: 100}
	collect(b, r) // it returns although the pipe does not end
	if string(b.data) != words {
		t.Errorf("read %q, want %q", b.data, words)
	}
}
