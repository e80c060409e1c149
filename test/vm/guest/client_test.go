package guest

import (
	"bufio"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// TestWaitAgentConnectsAgain checks that a machine reaches an agent that does not answer on the first connection.
func TestWaitAgentConnectsAgain(t *testing.T) {
	m := &Machine{dir: t.TempDir()}
	l, err := net.Listen("unix", filepath.Join(m.dir, "agent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan int, 1)
	go func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			if n == 1 {
				continue // as an emulator that does not read
			}
			if _, err := bufio.NewReader(c).ReadBytes('\n'); err == nil {
				_, _ = c.Write([]byte(`{"boot":"new"}` + "\n"))
				served <- n
			}
			return
		}
	}()
	if m.Client, err = Connect(t.Context(), m.socket()); err != nil {
		t.Fatal(err)
	}
	defer func() { m.Client.Close() }()
	if err := m.waitAgent(t.Context(), "old", 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if n := <-served; n != 2 {
		t.Errorf("the agent answered on connection %d, want 2", n)
	}
}
