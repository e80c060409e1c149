// Package msgdiff returns the names of the fields in which two protobuf messages
// differ, for logs and errors. It never returns values, because values can be secret.
package msgdiff

import (
	"bytes"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	maxFields = 8  // bounds the number of fields in the result
	maxKey    = 64 // bounds the key of a map in the result, in bytes
)

// Fields returns the paths of the fields in which two messages of the same type differ,
// such as "mounts[2].host_path". If more than maxFields differ, the last element is "…".
func Fields(a, b proto.Message) []string {
	d := &differ{}
	d.compareMessages("", a.ProtoReflect(), b.ProtoReflect())
	if len(d.paths) > maxFields {
		return append(d.paths[:maxFields], "…")
	}
	return d.paths
}

// differ collects the paths of fields that differ.
type differ struct{ paths []string }

func (d *differ) add(path string) {
	if len(d.paths) <= maxFields { // one more than maxFields, so that Fields notices the excess
		d.paths = append(d.paths, path)
	}
}

func (d *differ) compareMessages(prefix string, a, b protoreflect.Message) {
	if prefix != "" {
		prefix += "."
	}
	fields := a.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		path := prefix + string(f.Name())
		if a.Has(f) != b.Has(f) {
			d.add(path)
			continue
		}
		if a.Has(f) {
			d.compareField(path, f, a.Get(f), b.Get(f))
		}
	}
	if !bytes.Equal(a.GetUnknown(), b.GetUnknown()) {
		d.add(prefix + "(unknown fields)")
	}
}

func (d *differ) compareField(path string, f protoreflect.FieldDescriptor, a, b protoreflect.Value) {
	switch {
	case f.IsMap():
		d.compareMaps(path, f, a.Map(), b.Map())
	case f.IsList():
		d.compareLists(path, f, a.List(), b.List())
	default:
		d.compareValues(path, f, a, b)
	}
}

// compareValues compares single values, elements of lists and values of maps.
func (d *differ) compareValues(path string, f protoreflect.FieldDescriptor, a, b protoreflect.Value) {
	if f.Message() != nil {
		d.compareMessages(path, a.Message(), b.Message())
	} else if !a.Equal(b) {
		d.add(path)
	}
}

func (d *differ) compareLists(path string, f protoreflect.FieldDescriptor, a, b protoreflect.List) {
	if a.Len() != b.Len() {
		d.add(path)
		return
	}
	for i := range a.Len() {
		d.compareValues(fmt.Sprintf("%s[%d]", path, i), f, a.Get(i), b.Get(i))
	}
}

func (d *differ) compareMaps(path string, f protoreflect.FieldDescriptor, a, b protoreflect.Map) {
	var keys []string
	byName := make(map[string]protoreflect.MapKey)
	addKey := func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		if _, ok := byName[k.String()]; !ok {
			keys, byName[k.String()] = append(keys, k.String()), k
		}
		return true
	}
	a.Range(addKey)
	b.Range(addKey)
	slices.Sort(keys)
	for _, key := range keys {
		k := byName[key]
		path := fmt.Sprintf("%s[%q]", path, key[:min(len(key), maxKey)])
		if a.Has(k) != b.Has(k) {
			d.add(path)
			continue
		}
		d.compareValues(path, f.MapValue(), a.Get(k), b.Get(k))
	}
}
