package wipe

import (
	"github.com/criserver/criserver/container"
)

// Plan lists pods, containers and images.
type Plan struct {
	Pods       []Pod       `json:"pods"`
	Containers []Container `json:"containers"`
	Images     []Image     `json:"images"`
}

// Pod is a pod in a Plan.
type Pod struct {
	ID        string `json:"id"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Ready     bool   `json:"ready"`
}

// Container is a container in a Plan.
type Container struct {
	ID    string `json:"id"`
	Pod   string `json:"pod"` // the ID of the pod
	Name  string `json:"name"`
	State string `json:"state"` // created, running, exited or unknown
}

// Image is an image in a Plan.
type Image struct {
	ID   string   `json:"id"`
	Tags []string `json:"tags"`
}

// newPlan returns all pods and containers, and if images is set, all images.
func newPlan(m Managers, images bool) Plan {
	plan := Plan{Pods: []Pod{}, Containers: []Container{}, Images: []Image{}}
	for _, pod := range m.Pods.List() {
		meta := pod.Config.GetMetadata()
		plan.Pods = append(plan.Pods, Pod{ID: pod.ID, Namespace: meta.GetNamespace(), Name: meta.GetName(), Ready: pod.Ready})
	}
	for _, c := range m.Containers.List() {
		plan.Containers = append(plan.Containers, Container{ID: c.ID, Pod: c.PodID, Name: c.Config.GetMetadata().GetName(), State: stateName(c.State)})
	}
	if images {
		for _, img := range m.Images.List() {
			plan.Images = append(plan.Images, Image{ID: img.ID.String(), Tags: append([]string{}, img.RepoTags...)})
		}
	}
	return plan
}

func stateName(s container.State) string {
	switch s {
	case container.Created:
		return "created"
	case container.Running:
		return "running"
	case container.Exited:
		return "exited"
	}
	return "unknown"
}

// Running returns the number of containers whose processes run or may run. The first process
// of a created container waits for the start and has not executed the user's program.
func (p Plan) Running() int {
	n := 0
	for _, c := range p.Containers {
		if c.State != "created" && c.State != "exited" {
			n++
		}
	}
	return n
}
