package node

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
)

func newStatusCommand(env *command.Environment) *cobra.Command {
	var out command.Output
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the state of the daemon and of its parts",
		Long: `Show the state of the daemon: runtime handlers, network, image store, pods and containers,
cgroups, security modules and plugins. The exit code is 1 if the runtime or the network is not
ready, or if the daemon does not run.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := env.AdminConnection(cmd.Context())
			if err != nil {
				return err
			}
			s, err := adminv1.NewDaemonClient(conn).GetStatus(cmd.Context(), &adminv1.GetStatusRequest{})
			if err != nil {
				return err
			}
			if err := out.Print(env.Stdout, s, func(t *command.Table) { writeStatus(t, s) }); err != nil {
				return err
			}
			return statusError(s)
		},
	}
	out.AddFlag(cmd)
	env.AddConnectionFlags(cmd)
	return cmd
}

// statusError returns an error if the runtime or the network is not ready.
func statusError(s *adminv1.GetStatusResponse) error {
	var errs []error
	for name, c := range map[string]*adminv1.Condition{"runtime": s.GetRuntime(), "network": s.GetNetwork().GetCondition()} {
		if !c.GetReady() {
			errs = append(errs, fmt.Errorf("the %s is not ready: %s", name, c.GetReason()))
		}
	}
	return errors.Join(errs...)
}

// writeStatus writes the state of the daemon: one row for each part, and a table of the
// runtime handlers.
func writeStatus(t *command.Table, s *adminv1.GetStatusResponse) {
	t.Row("daemon", fmt.Sprintf("version %s, %s, pid %d", s.GetVersion().GetVersion(), s.GetVersion().GetGoVersion(), s.GetPid()))
	t.Row("started", startText(s))
	t.Row("runtime", conditionText(s.GetRuntime()))
	t.Row("network", networkText(s.GetNetwork()))
	t.Row("CNI STATUS", cniStatusText(s.GetNetwork()))
	t.Row("storage", storageText(s.GetStorage()))
	t.Row("space", spaceText(s.GetStorage()))
	writeArchives(t, s.GetStorage().GetArchives())
	t.Row("pods", fmt.Sprintf("%d ready, %d not ready", s.GetPods().GetReady(), s.GetPods().GetNotReady()))
	c := s.GetContainers()
	t.Row("containers", fmt.Sprintf("%d running, %d created, %d exited, %d unknown", c.GetRunning(), c.GetCreated(), c.GetExited(), c.GetUnknown()))
	g := s.GetCgroups()
	t.Row("cgroups", fmt.Sprintf("version %d, driver %s, parent %s, monitors %s", g.GetVersion(), g.GetDriver(), g.GetParent(), g.GetMonitors()))
	t.Row("security", securityText(s.GetSecurity()))
	t.Row("plugins", pluginText(s.GetPlugins()))
	t.Line("")
	writeHandlers(t, s.GetRuntimeHandlers())
}

func startText(s *adminv1.GetStatusResponse) string {
	start := s.GetStartTime().AsTime()
	return fmt.Sprintf("%s, %s ago, within %s", start.Local().Format(time.RFC3339),
		time.Since(start).Round(time.Second), s.GetStartDuration().AsDuration().Round(time.Millisecond))
}

func conditionText(c *adminv1.Condition) string {
	if c.GetReady() {
		return "ready"
	}
	return "not ready: " + c.GetReason()
}

func networkText(n *adminv1.NetworkStatus) string {
	text := conditionText(n.GetCondition())
	switch {
	case n.GetDefaultBridge() != "":
		text += fmt.Sprintf(", default bridge %s with %s", n.GetDefaultBridge(), strings.Join(n.GetDefaultBridgeRanges(), " and "))
	case n.GetName() != "":
		text += fmt.Sprintf(", network %q of %s", n.GetName(), n.GetFile())
	}
	return text
}

func cniStatusText(n *adminv1.NetworkStatus) string {
	switch {
	case n.GetCniStatusTime() == nil:
		return "no answer yet"
	case n.GetCniStatusError() != "":
		return n.GetCniStatusError()
	}
	return fmt.Sprintf("no error, %s ago", time.Since(n.GetCniStatusTime().AsTime()).Round(time.Second))
}

func storageText(s *adminv1.StorageStatus) string {
	return fmt.Sprintf("%s: %d images, %d layers, %s; writable layers of containers %s",
		s.GetRoot(), s.GetImages(), s.GetLayers(), bytesText(s.GetImageBytes()), bytesText(s.GetWritableBytes()))
}

func spaceText(s *adminv1.StorageStatus) string {
	return fmt.Sprintf("%s of %s free, file system %s", bytesText(s.GetFreeBytes()), bytesText(s.GetCapacityBytes()), cmp.Or(s.GetFileSystem(), "unknown"))
}

// writeArchives writes the state of the archive directories, if there are any, with a row for each failure.
func writeArchives(t *command.Table, a *adminv1.ArchiveStatus) {
	if a == nil {
		return
	}
	text := fmt.Sprintf("%d loaded with %d images, %d failed", a.GetArchives(), a.GetImages(), len(a.GetFailures()))
	if a.GetLoading() != "" {
		text += ", loading " + a.GetLoading()
	}
	t.Row("archives", text)
	for _, f := range a.GetFailures() {
		t.Row("", f.GetPath()+": "+f.GetError())
	}
}

// bytesText returns a size with a binary unit, as in "1.5GiB".
func bytesText(n uint64) string { return units.BytesSize(float64(n)) }

func securityText(s *adminv1.SecurityStatus) string {
	parts := []string{"seccomp " + onOff(s.GetSeccomp()), "AppArmor " + onOff(s.GetApparmor()), "SELinux " + onOff(s.GetSelinux())}
	if s.GetApparmorProfile() != "" {
		parts[1] += " with the profile " + s.GetApparmorProfile()
	}
	return strings.Join(parts, ", ")
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func pluginText(p *adminv1.PluginStatus) string {
	if !p.GetEnabled() {
		return "off"
	}
	return fmt.Sprintf("%d connected, socket %s", p.GetConnected(), cmp.Or(p.GetSocket(), "closed"))
}

// writeHandlers writes a table of runtime handlers.
func writeHandlers(t *command.Table, handlers []*adminv1.RuntimeHandler) {
	t.Row("HANDLER", "DEFAULT", "VERSION", "USER NAMESPACES", "PATH", "PROBLEMS")
	for _, h := range handlers {
		problems := make([]string, 0, 3)
		for _, p := range []string{h.GetError(), h.GetFlaw(), h.GetUserNamespacesError()} {
			if p != "" {
				problems = append(problems, p)
			}
		}
		t.Row(h.GetName(), command.YesNo(h.GetDefault()), h.GetVersion(), command.YesNo(h.GetUserNamespaces()), h.GetPath(), strings.Join(problems, "; "))
	}
}
