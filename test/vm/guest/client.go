package guest

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/criserver/criserver/test/vm/wire"
)

// Command is a command to run in a guest.
type Command struct {
	Args           []string
	Dir            string // "/" if empty
	Env            []string
	Stdin          io.Reader // nil for none
	Stdout, Stderr io.Writer // nil discards
}

// Client talks to the agent of a guest. Only one client at a time can be connected.
type Client struct {
	conn net.Conn

	sending sync.Mutex // guards writes to conn

	mu      sync.Mutex // guards the fields below
	waiting map[string]chan wire.Reply
	boot    string        // of the last hello
	booted  chan struct{} // closed and replaced at each hello
	err     error         // why the connection ended
	ended   chan struct{} // closed when the connection has ended
}

// Connect waits until the emulator listens on the socket, and connects.
func Connect(ctx context.Context, socket string) (*Client, error) {
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err == nil {
			c := &Client{conn: conn, waiting: map[string]chan wire.Reply{}, booted: make(chan struct{}), ended: make(chan struct{})}
			go c.receive()
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Close ends the connection. Commands go on in the guest.
func (c *Client) Close() { c.conn.Close() }

func (c *Client) receive() {
	r := bufio.NewReaderSize(c.conn, 1<<20)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			c.mu.Lock()
			c.err = fmt.Errorf("connection to the guest: %w", err)
			c.mu.Unlock()
			close(c.ended)
			return
		}
		var reply wire.Reply
		if err := json.Unmarshal(line, &reply); err != nil {
			continue // the end of a line that an earlier client has not read
		}
		c.deliver(reply)
	}
}

func (c *Client) deliver(reply wire.Reply) {
	c.mu.Lock()
	if reply.Boot != "" {
		c.boot = reply.Boot
		close(c.booted)
		c.booted = make(chan struct{})
	}
	ch := c.waiting[reply.ID]
	c.mu.Unlock()
	if ch != nil {
		ch <- reply
	}
}

// writeTime limits how long a message waits until the guest reads the messages before it.
const writeTime = 2 * time.Minute

func (c *Client) send(req wire.Request) error {
	line, err := json.Marshal(req)
	if err != nil {
		return err
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	if err := c.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	if _, err = c.conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("send to the guest: %w", err)
	}
	return nil
}

// WaitBoot waits for an agent of another boot than the named one, and returns its boot ID.
func (c *Client) WaitBoot(ctx context.Context, other string) (string, error) {
	for {
		c.mu.Lock()
		boot, booted := c.boot, c.booted
		c.mu.Unlock()
		if boot != "" && boot != other {
			return boot, nil
		}
		// The agent may have said hello to an earlier client.
		if err := c.send(wire.Request{}); err != nil {
			return "", err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("the guest's agent does not answer: %w", context.Cause(ctx))
		case <-c.ended:
			return "", c.err
		case <-booted:
		case <-time.After(time.Second):
		}
	}
}

// Run runs a command and returns its exit status. When ctx ends, the command's process group is killed.
func (c *Client) Run(ctx context.Context, cmd Command) (int, error) {
	id := rand.Text()
	replies := make(chan wire.Reply, 16)
	c.mu.Lock()
	c.waiting[id] = replies
	boot := c.boot
	c.mu.Unlock()
	quit := make(chan struct{})
	defer func() {
		close(quit)
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
		for len(replies) > 0 {
			<-replies
		}
	}()
	if err := c.send(wire.Request{ID: id, Args: cmd.Args, Dir: cmd.Dir, Env: cmd.Env, EOF: cmd.Stdin == nil}); err != nil {
		return 0, err
	}
	if cmd.Stdin != nil {
		go c.feed(id, cmd.Stdin, quit)
	}
	done := ctx.Done()
	var late <-chan time.Time
	for {
		c.mu.Lock()
		booted, now := c.booted, c.boot
		c.mu.Unlock()
		if now != boot && boot != "" {
			return 0, errors.New("the guest has rebooted")
		}
		select {
		case r := <-replies:
			if err := errors.Join(write(cmd.Stdout, r.Out), write(cmd.Stderr, r.Err)); err != nil {
				return 0, err
			}
			switch {
			case r.Failed != "":
				return r.Code, fmt.Errorf("start %s: %s", cmd.Args[0], r.Failed)
			case r.Exited && done == nil && ctx.Err() != nil:
				return r.Code, fmt.Errorf("%s was killed: %w", cmd.Args[0], context.Cause(ctx))
			case r.Exited:
				return r.Code, nil
			}
		case <-booted:
		case <-c.ended:
			return 0, c.err
		case <-done:
			done, late = nil, time.After(30*time.Second)
			if err := c.send(wire.Request{ID: id, Kill: true}); err != nil {
				return 0, err
			}
		case <-late:
			return 0, fmt.Errorf("%s does not end after a kill: %w", cmd.Args[0], context.Cause(ctx))
		}
	}
}

func write(w io.Writer, b []byte) error {
	if w == nil || len(b) == 0 {
		return nil
	}
	_, err := w.Write(b)
	return err
}

// feed sends stdin.
func (c *Client) feed(id string, r io.Reader, quit chan struct{}) {
	b := make([]byte, wire.MaxData)
	for {
		n, err := r.Read(b)
		select {
		case <-quit:
			return
		default:
		}
		if sendErr := c.send(wire.Request{ID: id, In: b[:n], EOF: err != nil}); err != nil || sendErr != nil {
			return
		}
	}
}

// Output runs a command that must succeed and returns its standard output.
func (c *Client) Output(ctx context.Context, args ...string) (string, error) {
	var out, errs lockedBuffer
	code, err := c.Run(ctx, Command{Args: args, Stdout: &out, Stderr: &errs})
	if err == nil && code != 0 {
		err = fmt.Errorf("%v: exit status %d: %s", args, code, errs.String())
	}
	return out.String(), err
}

// Push copies a file of the host into the guest.
func (c *Client) Push(ctx context.Context, from, to string, mode os.FileMode) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	script := fmt.Sprintf(`cat >"$0.new" && chmod %o "$0.new" && mv "$0.new" "$0"`, mode)
	var errs lockedBuffer
	code, err := c.Run(ctx, Command{Args: []string{"sh", "-c", script, to}, Stdin: f, Stderr: &errs})
	if err == nil && code != 0 {
		err = fmt.Errorf("copy %s to the guest: exit status %d: %s", from, code, errs.String())
	}
	return err
}
