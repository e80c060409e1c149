package handlers

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/criserver/criserver/oci/runtime"
)

// merge returns the handlers of runtimes, without a default handler. Handlers that are equal
// in old are taken from old, unless their runtime did not answer: its binary may have been repaired.
func merge(runtimes map[string]*runtime.Runtime, old *Set) *Set {
	s := &Set{runtimes: runtimes, probers: make(map[string]*prober), former: make(map[string]*prober), added: make(map[string]*prober)}
	if old != nil {
		maps.Copy(s.former, old.former)
		maps.Copy(s.former, old.probers)
	}
	for name, rt := range runtimes {
		delete(s.former, name)
		if old != nil && reflect.DeepEqual(old.runtimes[name], rt) && !old.probers[name].failed() {
			s.runtimes[name], s.probers[name] = old.runtimes[name], old.probers[name]
			continue
		}
		s.probers[name] = newProber(rt)
		s.added[name] = s.probers[name]
	}
	return s
}

// CheckGuests returns an error if a handler of ready pods changes between a runtime that runs all containers of a pod
// in one guest, and a runtime without guests. New containers in these pods could not run. users contains the number of
// ready pods by the name of their handler.
func CheckGuests(before, next *Set, users map[string]int) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(users)) {
		former, now := before.prober(name), next.runtime(name)
		if former != nil && now != nil && former.runtime.Guest != now.Guest {
			errs = append(errs, fmt.Errorf("runtimes.%s.type: the type cannot change while %d pods use the handler; stop them, or add a handler with another name", name, users[name]))
		}
	}
	return errors.Join(errs...)
}

// keepDefault makes the default handler of old the default handler, and returns true, if the
// handler has not changed and the configuration names no other one.
func (s *Set) keepDefault(configured string, old *Set) bool {
	if old == nil || configured != "" && configured != old.defaultName {
		return false
	}
	if s.runtimes[old.defaultName] == nil || s.added[old.defaultName] != nil {
		return false
	}
	s.defaultName = old.defaultName
	return true
}
