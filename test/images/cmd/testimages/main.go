// Testimages builds the images that tests and the demo run, and serves them from a registry on loopback.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/criserver/criserver/test/images"
)

const usage = `usage: testimages build [-dir DIR] [-heavy] [-arch ARCH]
       testimages serve [-dir DIR] [-heavy] [-addr 127.0.0.1:0] [-registries-conf FILE]
       testimages list  [-dir DIR]

serve prints "listening on ADDRESS" once it answers, and makes what is missing before that.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "testimages:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return errors.New("no command given")
	}
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	dir := flags.String("dir", ".cache/images", "")
	heavy := flags.Bool("heavy", false, "")
	addr := flags.String("addr", "127.0.0.1:0", "")
	conf := flags.String("registries-conf", "", "")
	arch := flags.String("arch", runtime.GOARCH, "")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "build":
		return images.BuildFor(ctx, *arch, *dir, *heavy)
	case "serve":
		if err := images.Build(ctx, *dir, *heavy); err != nil {
			return err
		}
		return serve(ctx, *dir, *addr, *conf)
	case "list":
		return list(*dir)
	}
	fmt.Fprint(os.Stderr, usage)
	return fmt.Errorf("no such command: %s", args[0])
}

func list(dir string) error {
	names, err := images.Names(dir)
	for _, name := range names {
		fmt.Println(name)
	}
	return err
}

func serve(ctx context.Context, dir, addr, conf string) error {
	handler, err := images.Handler(dir)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	if conf != "" {
		if err := os.WriteFile(conf, []byte(images.RegistriesConf(l.Addr().String())), 0o644); err != nil {
			return err
		}
	}
	server := &http.Server{Handler: handler}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	fmt.Println("listening on", l.Addr())
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
