package admin

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/criserver/criserver/internal/ids"
)

// candidate is an object that a query can select.
type candidate[T any] struct {
	object T
	id     string
	name   string // NAMESPACE/NAME of a pod, or NAMESPACE/POD/NAME of a container
	alive  bool   // a ready pod, or a container that is created or running
}

// selectOne returns the object with an id, with a unique beginning of an id, or with a name.
// Earlier attempts of an object have the same name; selectOne returns the running attempt then. field is
// the field of the request, and kind names the object in errors.
//
// Errors: NotFound if nothing matches. InvalidArgument if the query is empty or several
// objects match.
func selectOne[T any](field, kind, query string, candidates []candidate[T]) (T, error) {
	var none T
	if !strings.Contains(query, "/") {
		byID := make(map[string]T, len(candidates))
		for _, c := range candidates {
			byID[c.id] = c.object
		}
		id, err := ids.Resolve(kind, byID, query)
		if err != nil {
			return none, fmt.Errorf("%s: %w", field, err)
		}
		return byID[id], nil
	}
	var named, alive []T
	for _, c := range candidates {
		if c.name != query {
			continue
		}
		named = append(named, c.object)
		if c.alive {
			alive = append(alive, c.object)
		}
	}
	switch {
	case len(alive) == 1:
		return alive[0], nil
	case len(named) == 1:
		return named[0], nil
	case len(named) == 0:
		return none, fmt.Errorf("%s: no %s is named %q: %w", field, kind, query, errdefs.ErrNotFound)
	}
	return none, fmt.Errorf("%s: %d %ss are named %q; use an id: %w", field, len(named), kind, query, errdefs.ErrInvalidArgument)
}
