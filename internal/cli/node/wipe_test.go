package node

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/criserver/criserver/internal/cli/command"
	"github.com/criserver/criserver/internal/daemon/wipe"
)

func TestWipeConfirmation(t *testing.T) {
	plan := wipe.Plan{
		Pods:       []wipe.Pod{{ID: "p1", Namespace: "ns", Name: "pod"}},
		Containers: []wipe.Container{{ID: "c1", Name: "web", State: "exited"}},
	}
	for name, tc := range map[string]struct {
		input       string
		yes, dryRun bool
		plan        wipe.Plan
		confirmed   bool
		err         error
	}{
		"yes":       {input: "y\n", plan: plan, confirmed: true},
		"long yes":  {input: " Yes\n", plan: plan, confirmed: true},
		"no":        {input: "n\n", plan: plan, err: errNotConfirmed},
		"empty":     {input: "\n", plan: plan, err: errNotConfirmed},
		"no input":  {plan: plan, err: errNotConfirmed},
		"flag":      {yes: true, plan: plan, confirmed: true},
		"dry run":   {input: "y\n", dryRun: true, plan: plan},
		"no object": {input: "y\n", plan: wipe.Plan{}},
	} {
		var stdout, stderr bytes.Buffer
		env := &command.Environment{Stdin: strings.NewReader(tc.input), Stdout: &stdout, Stderr: &stderr}
		c := &confirmation{env: env, out: &command.Output{Format: command.FormatTable}, yes: tc.yes, dryRun: tc.dryRun}
		confirmed, err := c.confirm(tc.plan)
		if confirmed != tc.confirmed || !errors.Is(err, tc.err) {
			t.Errorf("%s: got %v, %v; want %v, %v", name, confirmed, err, tc.confirmed, tc.err)
		}
		if asked := strings.Contains(stderr.String(), "Remove 1 pods, 1 containers"); asked != (tc.input != "" && !tc.dryRun && len(tc.plan.Pods) > 0 || name == "no input") {
			t.Errorf("%s: error output %q", name, stderr.String())
		}
		if len(tc.plan.Pods) > 0 && !strings.Contains(stdout.String(), "ns/pod") {
			t.Errorf("%s: the output does not list the pod: %s", name, stdout.String())
		}
	}
}
