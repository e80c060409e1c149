package fanout

import (
	"slices"
	"testing"
)

func TestSubscribeAndCancel(t *testing.T) {
	var f Fanout[int]
	send := func(events ...int) { f.Send(func() []int { return events }) }
	var a, b []int
	send(0)
	cancelA := f.Subscribe(func(n int) { a = append(a, n) })
	send(1, 2)
	cancelB := f.Subscribe(func(n int) { b = append(b, n) })
	send(3)
	cancelA()
	cancelA() // has no effect
	send(4)
	cancelB()
	send(5)
	if !slices.Equal(a, []int{1, 2, 3}) || !slices.Equal(b, []int{3, 4}) {
		t.Errorf("received %v and %v, want [1 2 3] and [3 4]", a, b)
	}
}
