package conmon_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/internal/proc"
)

const (
	fakeRuntimeEnv = "CONMON_TEST_FAKE_RUNTIME"
	launchEnv      = "CONMON_TEST_LAUNCH"
)

// fakeRuntime makes this test binary an OCI runtime. FAKE selects its behaviour:
//
//	refuse    create logs an error and fails
//	babble    create writes more to stderr than a pipe holds, then fails
//	hang      create makes half a container and never exits
//	nopid     create succeeds but writes no pid file
//	shout     create writes to stdout and stderr, then succeeds
//	hangStart start and restore never exit
//	failStart restore starts a process, logs an error and fails
//	fast      restore starts a process that exits at once
//
// A container is a shell that runs FAKE_SCRIPT when the file "start" exists. Each call is
// recorded in the file "calls".
func fakeRuntime(args []string) int {
	dir := os.Getenv("FAKE_DIR")
	note(dir, strings.Join(args, " "))
	opts, command := map[string]string{}, ""
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--force", a == "--detach":
		case strings.HasPrefix(a, "--"):
			opts[a] = args[i+1]
			i++
		case command == "":
			command = a
		}
	}
	switch command {
	case "create":
		return fakeCreate(dir, opts, os.Getenv("FAKE"))
	case "start":
		if os.Getenv("FAKE") == "hangStart" {
			touch(filepath.Join(dir, "starting"))
			time.Sleep(time.Hour)
		}
		return touch(filepath.Join(dir, "start"))
	case "restore":
		return fakeRestore(dir, opts, os.Getenv("FAKE"))
	case "wait":
		return fakeWait(dir)
	case "delete":
		if raw, err := os.ReadFile(filepath.Join(dir, "init")); err == nil {
			pid, _ := strconv.Atoi(string(raw))
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return 0
	}
	return 2
}

func fakeCreate(dir string, opts map[string]string, mode string) int {
	switch mode {
	case "refuse":
		line := `{"level":"error","msg":"exec \"/nope\": no such file","time":"x"}`
		_ = os.WriteFile(opts["--log"], []byte(`{"level":"warning","msg":"w"}`+"\n"+line+"\n"+`{"level":"info","msg":"later"}`+"\n"), 0o600)
		return 1
	case "babble":
		fmt.Fprint(os.Stderr, strings.Repeat("blah\n", 1<<20), "the cause")
		return 3
	case "shout":
		fmt.Println("from the runtime")
		fmt.Fprintln(os.Stderr, "from the runtime")
	}
	script := os.Getenv("FAKE_SCRIPT")
	if script == "" {
		script = "exec sleep 1000"
	}
	init := exec.Command("/bin/sh", "-c", "while ! [ -e "+dir+"/start ]; do sleep 0.01; done; "+script)
	init.Stdin, init.Stdout, init.Stderr = os.Stdin, os.Stdout, os.Stderr
	init.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := init.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	pid := []byte(strconv.Itoa(init.Process.Pid))
	_ = os.WriteFile(filepath.Join(dir, "init"), pid, 0o600)
	if mode == "hang" {
		touch(filepath.Join(dir, "hangs"))
		time.Sleep(time.Hour)
	}
	if mode != "nopid" {
		_ = os.WriteFile(opts["--pid-file"], pid, 0o600)
	}
	return 0
}

// fakeRestore starts the process of a container. It leaves a mount in the bundle and does not
// remove it, as a runtime that is killed while criu runs.
func fakeRestore(dir string, opts map[string]string, mode string) int {
	if err := syscall.Mount(opts["--image-path"], opts["--bundle"], "", syscall.MS_BIND, ""); err != nil && os.Geteuid() == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if opts["--work-path"] == "" {
		return 1
	}
	if mode == "fast" {
		_ = os.Setenv("FAKE_SCRIPT", "echo up; exit 5")
	}
	touch(filepath.Join(dir, "start"))
	if code := fakeCreate(dir, opts, mode); code != 0 {
		return code
	}
	switch mode {
	case "fast":
		for { // until the process is a zombie
			raw, _ := os.ReadFile(filepath.Join(dir, "init"))
			if stat, err := os.ReadFile("/proc/" + string(raw) + "/stat"); err == nil && strings.Contains(string(stat), ") Z ") {
				return 0
			}
			time.Sleep(time.Millisecond)
		}
	case "hangStart":
		touch(filepath.Join(dir, "starting"))
		time.Sleep(time.Hour)
	case "failStart":
		_ = os.WriteFile(opts["--log"], []byte(`{"level":"error","msg":"criu failed: type RESTORE errno 17"}`+"\n"), 0o600)
		return 1
	}
	return 0
}

// fakeWait waits for the file "exit" and prints the exit code in it, as the wait of gVisor
// does.
func fakeWait(dir string) int {
	for {
		if code, err := os.ReadFile(filepath.Join(dir, "exit")); err == nil {
			fmt.Printf(`{"exitStatus":%s}`, code)
			return 0
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func note(dir, line string) {
	f, err := os.OpenFile(filepath.Join(dir, "calls"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		fmt.Fprintln(f, line)
		f.Close()
	}
}

func touch(path string) int {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return 1
	}
	return 0
}

// launchAndHang makes this test binary a daemon that can be killed: it launches the monitor of
// the spec in its environment and then writes a line to stdout.
func launchAndHang() int {
	var spec conmon.Spec
	if err := json.Unmarshal([]byte(os.Getenv(launchEnv)), &spec); err != nil {
		return 1
	}
	w, err := proc.NewWatcher()
	if err != nil {
		return 1
	}
	go func() { _ = w.Run(context.Background()) }()
	l := conmon.Launcher{Path: os.Getenv("MONITOR"), Starter: plainStarter{}, Watcher: w}
	started, monitor, err := l.Create(context.Background(), spec)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("created", started.Init.PID, monitor.PID)
	time.Sleep(time.Hour)
	return 0
}
