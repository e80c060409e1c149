package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/criserver/criserver/test/harness"
)

// API sends a request to the API server and returns the body of the response.
func (c *Cluster) API(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.apiURL()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+c.tokens[userAdmin])
	request.Header.Set("Content-Type", "application/json")
	response, err := c.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, response.Status, strings.TrimSpace(string(text)))
	}
	return text, err
}

// Get reads an object.
func (c *Cluster) Get(ctx context.Context, path string, object any) error {
	text, err := c.API(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, object)
}

// waitForNodes waits until all nodes are ready, and stores the address ranges of their pods.
func (c *Cluster) waitForNodes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience(60*time.Second))
	defer cancel()
	for {
		err := c.readNodes(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for nodes: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c *Cluster) readNodes(ctx context.Context) error {
	for _, n := range c.Nodes {
		var object corev1.Node
		if err := c.Get(ctx, "/api/v1/nodes/"+n.Name, &object); err != nil {
			return err
		}
		n.PodCIDRs = nil
		for _, text := range object.Spec.PodCIDRs {
			cidr, err := netip.ParsePrefix(text)
			if err != nil {
				return err
			}
			n.PodCIDRs = append(n.PodCIDRs, cidr)
		}
		if len(n.PodCIDRs) != 2 || !NodeReady(&object) {
			return fmt.Errorf("node %s is not ready", n.Name)
		}
	}
	return nil
}

// NodeReady reports whether the node is ready.
func NodeReady(n *corev1.Node) bool {
	for _, condition := range n.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}
