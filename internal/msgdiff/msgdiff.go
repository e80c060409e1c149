// Package msgdiff names the fields in which two protobuf messages differ, for logs
// and errors. It never returns values, as those may be secrets.
package msgdiff

import (
	"bytes"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxFields bounds the answer, and maxKey the bytes of a map's key in it.
const maxFields, maxKey = 8, 64

// Fields returns the paths of the fields in which two messages of one type differ,
// such as "mounts[2].host_path". Of more than maxFields the rest is "…".
func Fields(a, b proto.Message) []string {
	d := &differ{}
	d.messages("", a.ProtoReflect(), b.ProtoReflect())
	if len(d.found) > maxFields {
		return append(d.found[:maxFields], "…")
	}
	return d.found
}

type differ struct{ found []string }

func (d *differ) add(path string) {
	if len(d.found) <= maxFields { // one more than is returned
		d.found = append(d.found, path)
	}
}

func (d *differ) messages(prefix string, a, b protoreflect.Message) {
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
			d.field(path, f, a.Get(f), b.Get(f))
		}
	}
	if !bytes.Equal(a.GetUnknown(), b.GetUnknown()) {
		d.add(prefix + "(unknown fields)")
	}
}

func (d *differ) field(path string, f protoreflect.FieldDescriptor, a, b protoreflect.Value) {
	switch {
	case f.IsMap():
		d.maps(path, f, a.Map(), b.Map())
	case f.IsList():
		d.lists(path, f, a.List(), b.List())
	default:
		d.values(path, f, a, b)
	}
}

// values is for what is neither a list nor a map.
func (d *differ) values(path string, f protoreflect.FieldDescriptor, a, b protoreflect.Value) {
	if f.Message() != nil {
		d.messages(path, a.Message(), b.Message())
	} else if !a.Equal(b) {
		d.add(path)
	}
}

func (d *differ) lists(path string, f protoreflect.FieldDescriptor, a, b protoreflect.List) {
	if a.Len() != b.Len() {
		d.add(path)
		return
	}
	for i := range a.Len() {
		d.values(fmt.Sprintf("%s[%d]", path, i), f, a.Get(i), b.Get(i))
	}
}

func (d *differ) maps(path string, f protoreflect.FieldDescriptor, a, b protoreflect.Map) {
	var keys []string
	at := make(map[string]protoreflect.MapKey)
	note := func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		if _, ok := at[k.String()]; !ok {
			keys, at[k.String()] = append(keys, k.String()), k
		}
		return true
	}
	a.Range(note)
	b.Range(note)
	slices.Sort(keys)
	for _, key := range keys {
		k := at[key]
		path := fmt.Sprintf("%s[%q]", path, key[:min(len(key), maxKey)])
		if a.Has(k) != b.Has(k) {
			d.add(path)
			continue
		}
		d.values(path, f.MapValue(), a.Get(k), b.Get(k))
	}
}
