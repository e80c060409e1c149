package kubelet

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream" //nolint:staticcheck // the dialers of client-go use this package
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
)

// streamPod returns a pod with a container for exec, one for attach, and a web server.
func streamPod() *corev1.Pod {
	echo := sh("echo", "while read line; do echo got $line; done; echo bye; exec sleep 100000")
	echo.Stdin = true
	return newPod("streams",
		sh("plain", "exec sleep 100000"), echo,
		sh("web", "mkdir /www; echo page > /www/index.html; exec busybox httpd -f -p 8080 -h /www"))
}

func testStreams(t *testing.T, n *node) {
	p := streamPod()
	p.Spec.Containers[2].ReadinessProbe = httpProbe("/", 8080)
	n.runPod(t, p)
	for protocol := range protocols {
		t.Run("exec by "+protocol, func(t *testing.T) { checkExec(t, n, protocol) })
		t.Run("attach by "+protocol, func(t *testing.T) { checkAttach(t, n, protocol) })
	}
	t.Run("port-forward by spdy", func(t *testing.T) {
		transport, upgrader, err := spdy.RoundTripperFor(n.config)
		if err != nil {
			t.Fatal(err)
		}
		u := n.url("portForward", container{pod: "streams"}, nil)
		checkPortForward(t, spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u))
	})
	t.Run("port-forward by websocket", func(t *testing.T) {
		dialer, err := portforward.NewSPDYOverWebsocketDialer(n.url("portForward", container{pod: "streams"}, nil), n.config)
		if err != nil {
			t.Fatal(err)
		}
		checkPortForward(t, dialer)
	})
}

func checkExec(t *testing.T, n *node, protocol string) {
	plain := container{"streams", "plain"}
	var stdout, stderr bytes.Buffer
	input := strings.Repeat("some input\n", 10000)
	err := n.stream(t.Context(), protocol, "exec", plain, []string{"sh", "-c", "cat; echo done >&2; exit 42"},
		remotecommand.StreamOptions{Stdin: strings.NewReader(input), Stdout: &stdout, Stderr: &stderr})
	var code utilexec.CodeExitError
	if !errors.As(err, &code) || code.Code != 42 {
		t.Errorf("exec of a command with exit code 42: got error %v", err)
	}
	if stdout.String() != input || stderr.String() != "done\n" {
		t.Errorf("output: got %d bytes, want %d; stderr: %q", stdout.Len(), len(input), stderr.String())
	}

	stdout.Reset()
	sizes := make(sizeQueue, 1)
	sizes <- remotecommand.TerminalSize{Width: 123, Height: 45}
	err = n.stream(t.Context(), protocol, "exec", plain, []string{"sh", "-c", "until stty size | grep '45 123'; do usleep 10000; done; tty"},
		remotecommand.StreamOptions{Stdin: strings.NewReader(""), Stdout: &stdout, Tty: true, TerminalSizeQueue: sizes})
	if err != nil || !strings.Contains(stdout.String(), "45 123\r\n/dev/") {
		t.Errorf("exec with a terminal: error %v, output %q", err, stdout.String())
	}
}

type sizeQueue chan remotecommand.TerminalSize

// Next implements remotecommand.TerminalSizeQueue. The queue has one size.
func (q sizeQueue) Next() *remotecommand.TerminalSize {
	select {
	case s := <-q:
		return &s
	default:
		return nil
	}
}

// checkAttach attaches to a container, exchanges lines with it, and disconnects.
func checkAttach(t *testing.T, n *node, protocol string) {
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	in, write := io.Pipe()
	read, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- n.stream(ctx, protocol, "attach", container{"streams", "echo"}, nil, remotecommand.StreamOptions{Stdin: in, Stdout: out})
		out.Close()
	}()
	lines := bufio.NewReader(read)
	for i := range 3 {
		word := fmt.Sprintf("%s-%d", protocol, i)
		if _, err := io.WriteString(write, word+"\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := lines.ReadString('\n'); err != nil || line != "got "+word+"\n" {
			t.Fatalf("answer to %s: got %q (error %v)", word, line, err)
		}
	}
	leave()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("attach ended with %v", err)
	}
	// The container still reads its input, so the next client gets answers, too.
	if p, err := n.pod(t.Context(), "streams"); err != nil || status(p, "echo").State.Running == nil {
		t.Errorf("the container does not run after its client has disconnected: %v", err)
	}
}

func checkPortForward(t *testing.T, dialer httpstream.Dialer) {
	stop, ready := make(chan struct{}), make(chan struct{})
	var report bytes.Buffer
	f, err := portforward.New(dialer, []string{"0:8080"}, stop, ready, io.Discard, &report)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- f.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	ports, err := f.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", ports[0].Local))
		if err != nil {
			t.Fatal(err)
		}
		page, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || string(page) != "page\n" {
			t.Errorf("page: got %q (error %v)", page, err)
		}
	}
	close(stop)
	if err := <-ended; err != nil || report.Len() > 0 {
		t.Errorf("forwarding ended with %v, %s", err, report.String())
	}
}

// testLogs reads logs through the kubelet while they grow.
func testLogs(t *testing.T, n *node) {
	c := sh("talk", "for i in 1 2 3 4 5; do echo line $i; done; while read line; do echo $line; done < /fifo; exec sleep 100000")
	c.Command[2] = "mkfifo /fifo; " + c.Command[2]
	n.runPod(t, newPod("logs", c))
	talk := container{"logs", "talk"}
	eventually(t, 10*time.Second, func() error {
		if got := n.logs(t, talk, nil); got != "line 1\nline 2\nline 3\nline 4\nline 5\n" {
			return fmt.Errorf("log: %q", got)
		}
		return nil
	})
	if got := n.logs(t, talk, url.Values{"tailLines": {"2"}}); got != "line 4\nline 5\n" {
		t.Errorf("last two lines: got %q", got)
	}
	if got := n.logs(t, talk, url.Values{"limitBytes": {"6"}}); got != "line 1" {
		t.Errorf("first six bytes: got %q", got)
	}
	if got := n.logs(t, talk, url.Values{"timestamps": {"true"}, "tailLines": {"1"}}); !strings.HasPrefix(got, "20") || !strings.HasSuffix(got, "Z line 5\n") {
		t.Errorf("line with a time stamp: got %q", got)
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	body, err := n.open(ctx, n.url("containerLogs", talk, url.Values{"follow": {"true"}, "tailLines": {"1"}}))
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	lines := bufio.NewReader(body)
	if line, err := lines.ReadString('\n'); err != nil || line != "line 5\n" {
		t.Fatalf("following the log: got %q (error %v)", line, err)
	}
	n.exec(t, talk, "exec 3> /fifo; echo new 1 >&3; echo new 2 >&3")
	for _, want := range []string{"new 1\n", "new 2\n"} {
		if line, err := lines.ReadString('\n'); err != nil || line != want {
			t.Fatalf("following the log: got %q (error %v), want %q", line, err, want)
		}
	}
}
