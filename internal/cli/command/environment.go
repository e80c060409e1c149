package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/config"
)

// Environment contains the streams of a command, and the connections to the daemon, which
// are opened when a command first uses them.
type Environment struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Version        string // the semantic version of this binary
	ConfigFile     string // main configuration file, "" for the default; set by the flag of AddConnectionFlags

	adminSocket string // path of the socket of the administration API, "" for the path in the configuration
	criSocket   string // path of the socket of the CRI, "" for the path in the configuration

	connections map[string]*grpc.ClientConn // by the path of the socket
}

// AddConnectionFlags adds the flags that select the daemon to a command that talks to the
// daemon.
func (e *Environment) AddConnectionFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&e.ConfigFile, "config", "", "main configuration `file` of the daemon, which contains the paths of its sockets (default "+config.DefaultFile+")")
	fs.StringVar(&e.adminSocket, "admin-socket", "", "`path` of the socket of the administration API (default: the path in the configuration)")
	fs.StringVar(&e.criSocket, "socket", "", "`path` of the socket of the CRI (default: the path in the configuration)")
}

// AdminConnection returns the connection to the administration API of the daemon, from
// which adminv1.NewDaemonClient and others make clients. The environment closes it.
func (e *Environment) AdminConnection(ctx context.Context) (*grpc.ClientConn, error) {
	if err := e.findSocket(&e.adminSocket, func(c config.Config) string { return c.AdminSocket }); err != nil {
		return nil, err
	}
	return e.Connect(ctx, e.adminSocket)
}

// criConnection returns the connection to the CRI of the daemon.
func (e *Environment) criConnection(ctx context.Context) (*grpc.ClientConn, error) {
	if err := e.findSocket(&e.criSocket, func(c config.Config) string { return c.Socket }); err != nil {
		return nil, err
	}
	return e.Connect(ctx, e.criSocket)
}

// RuntimeClient returns a client of the RuntimeService of the CRI.
func (e *Environment) RuntimeClient(ctx context.Context) (cri.RuntimeServiceClient, error) {
	conn, err := e.criConnection(ctx)
	if err != nil {
		return nil, err
	}
	return cri.NewRuntimeServiceClient(conn), nil
}

// findSocket sets the path of a socket to the path in the configuration, unless a flag has set it.
func (e *Environment) findSocket(path *string, configured func(config.Config) string) error {
	if *path != "" {
		return nil
	}
	cfg, err := config.Load(config.Source{File: e.ConfigFile})
	if err != nil {
		return fmt.Errorf("find the sockets of the daemon: %w", err)
	}
	*path = configured(cfg)
	return nil
}

// maxMessage is the largest message in bytes that the daemon sends.
const maxMessage = 16 << 20

// Connect returns the connection to a socket. It returns an error if no process serves the
// socket, so that a command fails at once and with a clear message.
func (e *Environment) Connect(ctx context.Context, socket string) (*grpc.ClientConn, error) {
	if conn := e.connections[socket]; conn != nil {
		return conn, nil
	}
	if err := tryConnect(ctx, socket); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("unix:"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return PlainError(invoker(ctx, method, req, reply, cc, opts...))
		}),
	)
	if err != nil {
		return nil, err
	}
	if e.connections == nil {
		e.connections = make(map[string]*grpc.ClientConn)
	}
	e.connections[socket] = conn
	return conn, nil
}

// tryConnect returns an error that describes why a client cannot connect to the socket.
func tryConnect(ctx context.Context, socket string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	switch {
	case err == nil:
		return c.Close()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("the daemon does not run, or uses another socket: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the command needs root: %w", err)
	}
	return err
}

// callError is an error that the daemon has returned. Its text is the message without the
// words that gRPC adds.
type callError struct{ status *status.Status }

func (e *callError) Error() string { return e.status.Message() }

// GRPCStatus returns the status, so that status.Code returns the code of the error.
func (e *callError) GRPCStatus() *status.Status { return e.status }

// PlainError returns the error of a call as a callError. A command must pass the errors of
// streams through it; unary calls already do.
func PlainError(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if s, ok := status.FromError(err); ok {
		return &callError{s}
	}
	return err
}

// Close closes all connections.
func (e *Environment) Close() {
	for _, conn := range e.connections {
		conn.Close()
	}
}
