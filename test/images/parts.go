package images

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

//go:embed guest
var guest embed.FS

// parts are the layers that most images share. Each is built once.
type parts struct {
	busybox v1.Layer // Debian's busybox with all its names, a shell, users, /tmp
	tools   v1.Layer // pgrep, ipcs and others, which the validation suite expects in a busybox image
	nginx   v1.Layer // Debian's nginx with its libraries
	pause   []byte
	guest   []byte
	state   []byte // locks of files and timers
}

func makeParts(ctx context.Context, scratch string) (*parts, error) {
	// Two packages have /bin/busybox, so each is unpacked in a separate directory.
	static, root := filepath.Join(scratch, "static"), filepath.Join(scratch, "debian")
	if err := fetch(ctx, static, "busybox-static"); err != nil {
		return nil, err
	}
	err := fetch(ctx, root, "busybox", "nginx", "nginx-common", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g")
	if err != nil {
		return nil, err
	}
	// The busybox of another architecture cannot run on this machine. The busybox of this machine has the same names.
	lister := filepath.Join(static, "bin/busybox")
	if arch != runtime.GOARCH {
		native := filepath.Join(scratch, "native")
		if err := fetchFor(ctx, runtime.GOARCH, native, "busybox-static"); err != nil {
			return nil, err
		}
		lister = filepath.Join(native, "bin/busybox")
	}
	p := &parts{}
	if p.pause, err = compile(ctx, scratch, "pause"); err != nil {
		return nil, err
	}
	if p.guest, err = compile(ctx, scratch, "tools"); err != nil {
		return nil, err
	}
	if p.state, err = compile(ctx, scratch, "state"); err != nil {
		return nil, err
	}
	if p.busybox, err = busyboxLayer(ctx, lister, static, root); err != nil {
		return nil, fmt.Errorf("busybox layer: %w", err)
	}
	if p.tools, err = toolsLayer(p.guest); err != nil {
		return nil, fmt.Errorf("tools layer: %w", err)
	}
	if p.nginx, err = nginxLayer(root); err != nil {
		return nil, fmt.Errorf("nginx layer: %w", err)
	}
	return p, nil
}

// compile builds a program of guest/ as a static, reproducible binary.
func compile(ctx context.Context, scratch, name string) ([]byte, error) {
	source, err := guest.ReadFile("guest/" + name + "/main.go")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(scratch, "guest", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), source, 0o644); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w -buildid=", "-o", name, "main.go")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GO111MODULE=off", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile guest program %s: %w\n%s", name, err, out)
	}
	return os.ReadFile(filepath.Join(dir, name))
}

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
`

const group = `root:x:0:
daemon:x:1:
bin:x:2:
adm:x:4:
tty:x:5:
www-data:x:33:
users:x:100:
nogroup:x:65534:
`

// busyboxLayer builds a small root file system. The names are hard links, as in the official busybox image, because a
// masked path must hide one command, not all of them. For the same reason the shell comes from the dynamically linked
// package: the static shell runs its built-in commands without looking at the files.
func busyboxLayer(ctx context.Context, lister, static, root string) (v1.Layer, error) {
	list, err := exec.CommandContext(ctx, lister, "--list").Output()
	if err != nil {
		return nil, err
	}
	t := newTree().
		dir("bin", 0o755).dir("dev", 0o755).dir("etc", 0o755).dir("home", 0o755).dir("proc", 0o755).dir("root", 0o700).
		dir("sys", 0o755).dir("tmp", 0o1777).dir("usr/bin", 0o755).dir("usr/sbin", 0o755).dir("var/www", 0o755).dir("var/run", 0o755).
		text("etc/passwd", passwd).text("etc/group", group).text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n").
		hostFile("bin/busybox", 0o755, filepath.Join(static, "bin/busybox"))
	if err := t.program("bin/sh", filepath.Join(root, "bin/busybox"), root); err != nil {
		return nil, err
	}
	for _, name := range strings.Fields(string(list)) {
		if name != "httpd" { // images with this layer replace this name with another program
			t.hardlink("bin/"+name, "bin/busybox") // existing names are not replaced
		}
	}
	return t.layer()
}

func toolsLayer(binary []byte) (v1.Layer, error) {
	return newTree().
		file("bin/pgrep", 0o755, binary).
		hardlink("bin/ipcs", "bin/pgrep").
		layer()
}

const nginxConfig = `user nobody nogroup;
worker_processes 1;
pid /var/run/nginx.pid;
error_log /dev/stderr notice;
events {
	worker_connections 128;
}
http {
	include mime.types;
	access_log /dev/stdout;
	sendfile on;
	include conf.d/*.conf;
}
`

func nginxLayer(root string) (v1.Layer, error) {
	t := newTree().
		dir("var/lib/nginx", 0o755).dir("var/log/nginx", 0o755).
		text("etc/nginx/nginx.conf", nginxConfig).
		hostFile("etc/nginx/mime.types", 0o644, filepath.Join(root, "etc/nginx/mime.types")).
		hostFile("usr/share/nginx/html/index.html", 0o644, filepath.Join(root, "usr/share/nginx/html/index.html"))
	if err := t.program("usr/sbin/nginx", filepath.Join(root, "usr/sbin/nginx"), root); err != nil {
		return nil, err
	}
	return t.layer()
}

// nginxSite builds the small top layer with the port on which nginx serves the page.
func nginxSite(port int) (v1.Layer, error) {
	return newTree().
		text("etc/nginx/conf.d/default.conf", fmt.Sprintf("server {\n\tlisten %d;\n\troot /usr/share/nginx/html;\n}\n", port)).
		layer()
}
