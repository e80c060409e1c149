// Package criu contains the two programs that run between the monitor and CRIU while a container is restored. The
// monitor runs its own program, which makes a mount namespace and executes the OCI runtime (ExecRestore). The runtime
// runs the program a second time, under the name of CRIU (Exec).
package criu

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/sys"
	"github.com/criserver/criserver/conmon/wire"
)

// A restored container must see its own cgroups, and not the cgroups of the checkpoint. CRIU does not manage cgroups
// here, because otherwise the images of the checkpoint name the cgroups that CRIU writes to. So the container gets the
// cgroup namespace of CRIU, which is the namespace of the host, and, on cgroup v1, mounts of the cgroups of the
// runtime. Both are wrong. Therefore the runtime finds this program under the name of CRIU. The program waits until the
// runtime has moved the program to the cgroup of the container, sets up the cgroups, and executes CRIU.

// Name is the name of CRIU, and of the link to this program in linkDir.
const Name = "criu"

// linkDir is the directory with the link, in the run directory.
const linkDir = "criu-path"

// Interpose returns an environment in which the runtime finds this program under the name of CRIU.
func Interpose(spec *wire.Spec) ([]string, error) {
	dir := spec.RunDir + "/" + linkDir
	if err := unix.Mkdir(dir, 0o700); err != nil && err != unix.EEXIST {
		return nil, sys.Wrap("make "+dir, err)
	}
	link := dir + "/" + Name
	_ = unix.Unlink(link)
	// The path stays valid if the program is replaced by another version.
	if err := unix.Symlink("/proc/"+strconv.Itoa(unix.Getpid())+"/exe", link); err != nil {
		return nil, sys.Wrap("make "+link, err)
	}
	env := spec.RuntimeEnv
	if env == nil {
		env = syscall.Environ()
	}
	return setPath(env, dir+":"+pathOf(env)), nil
}

// pathOf returns the PATH of an environment.
func pathOf(env []string) (path string) {
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = value
		}
	}
	return path
}

// setPath returns a copy of env with another PATH.
func setPath(env []string, path string) []string {
	out := []string{"PATH=" + path}
	for _, kv := range env {
		if !strings.HasPrefix(kv, "PATH=") {
			out = append(out, kv)
		}
	}
	return out
}

// Exec sets the cgroups up and executes CRIU with args. The first directory of PATH is linkDir.
func Exec(args []string) int {
	env := syscall.Environ()
	dir, path, _ := strings.Cut(pathOf(env), ":")
	env = setPath(env, path)
	err := awaitRequest(args)
	if err == nil {
		err = prepare(env, strings.TrimSuffix(dir, "/"+linkDir))
	}
	if err == nil {
		err = unix.ENOENT
		for _, dir := range strings.Split(path, ":") {
			if program := dir + "/" + Name; dir != "" && unix.Access(program, unix.X_OK) == nil {
				err = syscall.Exec(program, args, env)
				break
			}
		}
	}
	_, _ = unix.Write(2, []byte("run criu: "+err.Error()+"\n"))
	return 1
}

// prepare announces this process to the monitor, and makes the cgroups of the container visible to the process: in
// a new cgroup namespace, or with bind mounts. If the runtime has not moved the process to another cgroup, the request
// is not for a restore, and prepare does nothing.
func prepare(env []string, runDir string) error {
	buffer, err := sys.NewBuffer(maxTable)
	if err != nil {
		return err
	}
	own, err := cgroupsOf("self", buffer)
	if err != nil {
		return err
	}
	runtime, err := cgroupsOf(strconv.Itoa(unix.Getppid()), buffer)
	if err != nil || equalCgroups(own, runtime) {
		return err
	}
	if err := announce(runDir); err != nil {
		return sys.Wrap("announce criu to the monitor", err)
	}
	for _, kv := range env {
		if kv == wire.CgroupNamespace {
			return sys.WrapIf("unshare the cgroup namespace", unix.Unshare(unix.CLONE_NEWCGROUP))
		}
	}
	table, err := sys.ReadFile("/proc/self/mountinfo", buffer)
	if err != nil {
		return err
	}
	return bindCgroups(string(table), own, runtime, func(source, target string) error {
		return unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, "")
	})
}

// awaitRequest waits for the first request. The runtime sends its requests to the descriptor in args, and sends the
// request for the restore after it has moved the process to the cgroup of the container.
func awaitRequest(args []string) error {
	if len(args) < 3 || args[1] != "swrk" {
		return nil // a command line has no request
	}
	fd, err := strconv.Atoi(args[2])
	if err != nil {
		return sys.Wrap("descriptor "+args[2], err)
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if err != unix.EINTR {
			return sys.WrapIf("wait for the request of the runtime", err)
		}
	}
}
