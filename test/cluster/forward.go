package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/criserver/criserver/test/harness"
)

// forwarder forwards the connections of kubectl from a port on the loopback address of the host to the API server. It
// ends TLS on both sides, because kubectl waits at most 10 seconds for a handshake, and an API server on a slow machine
// can take longer.
type forwarder struct {
	net.Listener
	cluster     *Cluster
	authorities *x509.CertPool
}

// forward starts the forwarder and writes the kubeconfig of the administrator.
func (c *Cluster) forward(ctx context.Context) error {
	cert, err := tls.LoadX509KeyPair(c.path("pki", "apiserver.crt"), c.path("pki", "apiserver.key"))
	if err != nil {
		return fmt.Errorf("forward to the API server: %w", err)
	}
	ca, err := os.ReadFile(c.path("pki", "ca.crt"))
	if err != nil {
		return fmt.Errorf("forward to the API server: %w", err)
	}
	f := &forwarder{cluster: c, authorities: x509.NewCertPool()}
	f.authorities.AppendCertsFromPEM(ca)
	plain, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("forward to the API server: %w", err)
	}
	f.Listener = tls.NewListener(plain, &tls.Config{
		Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS13,
	})
	c.forwarder = f
	go f.run()
	return c.writeKubeconfig(c.KubeconfigPath(), "https://"+f.Addr().String(), userAdmin)
}

// run forwards connections until the listener is closed.
func (f *forwarder) run() {
	for {
		conn, err := f.Accept()
		if err != nil {
			return
		}
		go f.serve(conn.(*tls.Conn)) //nolint:forcetypeassert // a TLS listener accepts TLS connections
	}
}

// serve copies both directions of a connection until both have ended. If the API server does not answer, the client
// sees a closed connection.
func (f *forwarder) serve(client *tls.Conn) {
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience(10*time.Second))
	defer cancel()
	if err := client.HandshakeContext(ctx); err != nil {
		return
	}
	server, err := f.dial(ctx, client.ConnectionState().NegotiatedProtocol)
	if err != nil {
		return
	}
	defer server.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyHalf(server, client)
	}()
	copyHalf(client, server)
	<-done
}

// dial connects to the API server with the protocol that the client speaks, HTTP/2 or HTTP/1.1.
func (f *forwarder) dial(ctx context.Context, protocol string) (*tls.Conn, error) {
	conn, err := f.cluster.Dial(ctx, "tcp", fmt.Sprintf("%s:%d", LANAddress4, apiPort))
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: f.authorities, ServerName: LANAddress4, MinVersion: tls.VersionTLS13}
	if protocol != "" {
		config.NextProtos = []string{protocol}
	}
	server := tls.Client(conn, config)
	if err := server.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return server, nil
}

// copyHalf copies one direction until it ends, and then tells the receiver that no more bytes follow.
func copyHalf(to, from *tls.Conn) {
	_, _ = io.Copy(to, from) // an error ends both directions
	_ = to.CloseWrite()
}
