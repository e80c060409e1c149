package nri

import (
	"maps"
	"sync"
)

// making are the pods and containers that plugins were asked about and that
// the runtime does not show yet.
type making struct {
	mu         sync.Mutex // guards the maps
	pods       map[string]Pod
	containers map[string]Container
}

func newMaking() making {
	return making{pods: make(map[string]Pod), containers: make(map[string]Container)}
}

func (k *making) addPod(p Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pods[p.ID] = p
}

func (k *making) addContainer(c Container) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.containers[c.ID] = c
}

// done is for what is shown from now on, or has failed.
func (k *making) done(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.pods, id)
	delete(k.containers, id)
}

// all is what there is at this moment.
func (k *making) all() (map[string]Pod, map[string]Container) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.pods), maps.Clone(k.containers)
}
