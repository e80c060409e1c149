package cluster

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/criserver/criserver/test/harness"
	"github.com/criserver/criserver/test/images"
)

// registryAddress is the address of the registry in the LAN.
var registryAddress = fmt.Sprintf("%s:%d", LANAddress4, registryPort)

// StartRegistry starts the registry of the test images in the LAN.
func (c *Cluster) StartRegistry(ctx context.Context) error {
	cache := filepath.Join(c.Top, ".cache", "images")
	if err := images.Build(ctx, cache, false); err != nil {
		return err
	}
	if err := images.BuildProgram(ctx, cache, dnsImage, c.program("coredns")); err != nil {
		return err
	}
	handler, err := images.Handler(cache)
	if err != nil {
		return err
	}
	err = harness.In(c.Control.NetNS(), func() error {
		c.registry, err = (&net.ListenConfig{}).Listen(ctx, "tcp", registryAddress)
		return err
	})
	if err != nil {
		return fmt.Errorf("start registry: %w", err)
	}
	c.registriesConf = images.RegistriesConf(registryAddress)
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	go server.Serve(c.registry) // ends when StopRegistry closes the listener
	return nil
}

// StopRegistry stops the registry. Connections that exist continue.
func (c *Cluster) StopRegistry() error {
	if c.registry == nil {
		return nil
	}
	return c.registry.Close()
}
