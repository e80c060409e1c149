package network

import (
	"encoding/json"
	"fmt"
)

// Cached returns the attachments of a pod that the CNI library remembers, with the
// configurations that they were made with. It is for a pod whose record is lost.
func (n *Network) Cached(pod string) ([]Interface, error) {
	found, err := n.cni.GetCachedAttachments(pod)
	if err != nil {
		return nil, fmt.Errorf("attachments of pod %q: %w", pod, err)
	}
	var out []Interface
	for _, a := range found {
		i := Interface{Network: a.Network, Name: a.IfName, Plan: a.Config}
		if _, err := fromRaw(i.Plan); err != nil {
			return out, fmt.Errorf("attachment of pod %q to network %q: %w", pod, a.Network, err)
		}
		if a.ContainerID == pod && json.Valid(i.Plan) {
			out = append(out, i)
		}
	}
	return out, nil
}
