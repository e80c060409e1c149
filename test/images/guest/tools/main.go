// Tools is one program with several names: those that the CRI validation suite runs in its containers and that Debian's
// busybox does not have.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func main() {
	tools := map[string]func(args []string) error{
		"httpd":      httpd,
		"ipcs":       ipcs,
		"nonewprivs": nonewprivs,
		"pgrep":      pgrep,
	}
	name := filepath.Base(os.Args[0])
	run, ok := tools[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "%s: no such tool\n", name)
		os.Exit(127)
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// pgrep prints the pids of the processes whose name contains the argument, and fails if there are none.
func pgrep(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: pgrep NAME")
	}
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return err
	}
	found := false
	for _, path := range comms {
		comm, err := os.ReadFile(path)
		pid := filepath.Base(filepath.Dir(path))
		if err != nil || pid == strconv.Itoa(os.Getpid()) || !strings.Contains(string(comm), args[0]) {
			continue
		}
		found = true
		fmt.Println(pid)
	}
	if !found {
		os.Exit(1)
	}
	return nil
}

// ipcs -m lists the shared memory segments of the IPC namespace.
func ipcs([]string) error {
	segments, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(segments)
	return err
}

// nonewprivs prints the effective user id. The file is setuid root, so the id is 0 unless no_new_privs is set.
func nonewprivs([]string) error {
	_, err := fmt.Printf("Effective uid: %d\n", os.Geteuid())
	return err
}

// httpd answers every request on port 80 with one page.
func httpd([]string) error {
	l, err := net.Listen("tcp", ":80")
	if err != nil {
		return err
	}
	fmt.Println("httpd: listening on", l.Addr())
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go answer(conn)
	}
}

func answer(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	for lines.Scan() && lines.Text() != "" {
	}
	const page = "It works!\n"
	fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(page), page)
}
