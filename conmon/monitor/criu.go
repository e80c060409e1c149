package monitor

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
)

// A restored container must see its own cgroups, and not the cgroups of the checkpoint. CRIU does not manage cgroups
// here, because otherwise the images of the checkpoint name the cgroups that CRIU writes to. So the container gets the
// cgroup namespace of CRIU, which is the namespace of the host, and, on cgroup v1, mounts of the cgroups of the
// runtime. Both are wrong. Therefore the runtime finds this program under the name of CRIU. The program waits until the
// runtime has moved the program to the cgroup of the container, sets up the cgroups, and executes CRIU.

// criuName is the name of CRIU, and of the link to this program in criuDir.
const criuName = "criu"

// criuDir is the directory with the link, in the run directory.
const criuDir = "criu-path"

// interposeCRIU returns an environment in which the runtime finds this program under the name of CRIU.
func interposeCRIU(spec *wire.Spec) ([]string, error) {
	dir := spec.RunDir + "/" + criuDir
	if err := unix.Mkdir(dir, 0o700); err != nil && err != unix.EEXIST {
		return nil, wrap("make "+dir, err)
	}
	link := dir + "/" + criuName
	_ = unix.Unlink(link)
	// The path stays valid if the program is replaced by another version.
	if err := unix.Symlink("/proc/"+strconv.Itoa(unix.Getpid())+"/exe", link); err != nil {
		return nil, wrap("make "+link, err)
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

// execCRIU sets the cgroups up and executes CRIU with args. The first directory of PATH is criuDir.
func execCRIU(args []string) int {
	env := syscall.Environ()
	dir, path, _ := strings.Cut(pathOf(env), ":")
	env = setPath(env, path)
	err := awaitRequest(args)
	if err == nil {
		err = prepareCRIU(env, strings.TrimSuffix(dir, "/"+criuDir))
	}
	if err == nil {
		err = unix.ENOENT
		for _, dir := range strings.Split(path, ":") {
			if program := dir + "/" + criuName; dir != "" && unix.Access(program, unix.X_OK) == nil {
				err = syscall.Exec(program, args, env)
				break
			}
		}
	}
	_, _ = unix.Write(2, []byte("run criu: "+err.Error()+"\n"))
	return 1
}

// prepareCRIU announces this process to the monitor, and makes the cgroups of the container visible to the process: in
// a new cgroup namespace, or with bind mounts. If the runtime has not moved the process to another cgroup, the request
// is not for a restore, and prepareCRIU does nothing.
func prepareCRIU(env []string, runDir string) error {
	buffer, err := newBuffer(maxTable)
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
	if err := announceCRIU(runDir); err != nil {
		return wrap("announce criu to the monitor", err)
	}
	for _, kv := range env {
		if kv == wire.CgroupNamespace {
			return wrapIf("unshare the cgroup namespace", unix.Unshare(unix.CLONE_NEWCGROUP))
		}
	}
	table, err := readFile("/proc/self/mountinfo", buffer)
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
		return wrap("descriptor "+args[2], err)
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if err != unix.EINTR {
			return wrapIf("wait for the request of the runtime", err)
		}
	}
}
