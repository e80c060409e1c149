package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// killVar is the environment variable that makes this test binary the process that is killed.
const killVar = "IMAGE_TEST_KILLED"

// TestKilled is the process that TestKillDuringPull kills. It pulls and removes an image until it is killed.
func TestKilled(t *testing.T) {
	args := strings.Split(os.Getenv(killVar), " ")
	if len(args) != 2 {
		t.Skip("runs only as a child of TestKillDuringPull")
	}
	b := &bed{dir: args[0], cfg: killedConfig(args[0])}
	b.restart(t)
	go func() { _ = b.Run(context.Background()) }()
	for range 1000 {
		_, err := b.Pull(context.Background(), PullRequest{Ref: args[1]})
		if err == nil {
			err = b.Remove(context.Background(), args[1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func killedConfig(dir string) Config {
	return Config{
		Root: dir + "/root", RunRoot: dir + "/run", RegistriesConf: dir + "/registries.conf",
		RegistriesConfDir: dir + "/registries.conf.d", PolicyPath: dir + "/policy.json", AuthFile: dir + "/auth.json",
		MaxParallelLayers: 6, ProgressWindow: 2 * time.Minute, Limits: testLimits,
	}
}

// killAfter runs TestKilled in a new process and kills the process when wait returns. The process
// must not end before.
func killAfter(t *testing.T, dir, ref string, wait func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$", "-test.v")
	cmd.Env = append(os.Environ(), killVar+"="+dir+" "+ref)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		err := errors.Join(cmd.Process.Kill(), cmd.Wait())
		// Before Wait, a process that has ended can still be killed.
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
			t.Fatalf("process ended before it was killed: %v\n%s", err, out.String())
		}
	}()
	wait()
}

// seededRand returns a source of random numbers. A failed test logs the seed, and
// $CRISERVER_TEST_SEED sets the seed.
func seededRand(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if given := os.Getenv("CRISERVER_TEST_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("CRISERVER_TEST_SEED: %v", err)
		}
	}
	t.Logf("CRISERVER_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// TestKillDuringPull kills a process at random times during a pull or a removal. The next process
// must have either the complete image or none.
func TestKillDuringPull(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	img := three(t)
	for i := range 4 {
		img.Layers = append(img.Layers, imagetest.Files(t, imagetest.File(fmt.Sprint("noise", i), fmt.Sprint(i)+noise(1<<20))))
	}
	reg.Push("a", "1", img)
	// A slow registry makes it likely that the process is killed during the pull.
	reg.Set(imagetest.Faults{Blob: func(w http.ResponseWriter, _ *http.Request, _ digest.Digest, b []byte) bool {
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		for len(b) > 0 {
			n := min(len(b), 100<<10)
			_, _ = w.Write(b[:n])
			b = b[n:]
			time.Sleep(2 * time.Millisecond)
		}
		return true
	}})
	b := newBed(t, reg)
	ref := reg.Host + "/a:1"
	rnd := seededRand(t)
	for i := range 12 {
		reg.Requests()
		killAfter(t, b.dir, ref, func() {
			eventually(t, "a pull", func() bool { return len(reg.Requests()) > 0 })
			time.Sleep(time.Duration(rnd.IntN(400)) * time.Millisecond)
		})
		b.restart(t)
		if staged := names(t, b.Manager.dir(stageDir)); len(staged) > 0 {
			t.Errorf("run %d: leftovers in the staging directory: %v", i, staged)
		}
		if found, err := b.Check(t.Context(), false); err != nil || len(found) > 0 {
			t.Errorf("run %d: got problems %+v, %v", i, found, err)
		}
		for _, got := range b.List() {
			root, container := b.mount(t, got)
			equal(t, "file", read(t, root, "etc/a"), "upper")
			if err := b.UnmountRootFS(t.Context(), container); err != nil {
				t.Fatal(err)
			}
		}
	}
	root, _ := b.mount(t, b.pull(t, ref))
	equal(t, "bytes", len(read(t, root, "noise3")), len(noise(1<<20))+1)
}
