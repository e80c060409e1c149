package admin

import (
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/sandbox"
)

// Pods lists the pod sandboxes. *sandbox.Manager implements Pods.
type Pods interface {
	// List returns all pods, oldest first.
	List() []*sandbox.Pod
}

// Containers lists the containers. *container.Manager implements Containers.
type Containers interface {
	// List returns all containers.
	List() []*container.Snapshot
}

// Cgroups reads cgroups. *cgroup.Tree implements Cgroups.
type Cgroups interface {
	// V2 reports whether the controllers are on the unified hierarchy.
	V2() bool
	Stats(path string) (cgroup.Stats, error)
	Limits(path string, unified ...string) ([]cgroup.Limit, error)
}

// selectPods returns the pod that a query selects, or all pods for an empty query.
func (s *Server) selectPods(field, query string) ([]*sandbox.Pod, error) {
	pods := s.cfg.Pods.List()
	if query == "" {
		return pods, nil
	}
	candidates := make([]candidate[*sandbox.Pod], 0, len(pods))
	for _, p := range pods {
		candidates = append(candidates, candidate[*sandbox.Pod]{p, p.ID, podName(p), p.Ready})
	}
	p, err := selectOne(field, "pod sandbox", query, candidates)
	if err != nil {
		return nil, err
	}
	return []*sandbox.Pod{p}, nil
}

func podName(p *sandbox.Pod) string {
	return p.Config.GetMetadata().GetNamespace() + "/" + p.Config.GetMetadata().GetName()
}

// selectContainer returns the container that a query selects.
func (s *Server) selectContainer(field, query string) (*container.Snapshot, error) {
	var candidates []candidate[*container.Snapshot]
	for _, c := range s.cfg.Containers.List() {
		pod := c.PodConfig.GetMetadata()
		candidates = append(candidates, candidate[*container.Snapshot]{
			c, c.ID, pod.GetNamespace() + "/" + pod.GetName() + "/" + c.Config.GetMetadata().GetName(), isAlive(c),
		})
	}
	return selectOne(field, "container", query, candidates)
}

func isAlive(c *container.Snapshot) bool {
	return c.State == container.Created || c.State == container.Running
}
