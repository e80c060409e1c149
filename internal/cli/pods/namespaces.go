package pods

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/command"
)

func newNamespacesCommand(env *command.Environment) *cobra.Command {
	var out command.Output
	cmd := &cobra.Command{
		Use:   "namespaces [POD]",
		Short: "Show the Linux namespaces of the pods, and who shares them",
		Long: `Show the Linux namespaces of the pods and of their containers, with the inode numbers that
lsns(8) shows, the processes in each of them, and the id mappings of user namespaces.

POD is an id, a unique beginning of an id, or NAMESPACE/NAME. The scope of a namespace is host
(the pod uses the namespace of the node), pod (the pod has one, which its containers share), or the
container that has it alone. The command changes nothing.

The exit code is 1 if a namespace of a ready pod cannot be read.`,
		Example: `  criserver namespaces
  criserver namespaces default/web -o yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := env.AdminConnection(cmd.Context())
			if err != nil {
				return err
			}
			req := &adminv1.ListNamespacesRequest{}
			if len(args) == 1 {
				req.Pod = args[0]
			}
			r, err := adminv1.NewNamespacesClient(conn).ListNamespaces(cmd.Context(), req)
			if err != nil {
				return err
			}
			if err := out.Print(env.Stdout, r, func(t *command.Table) { writeNamespaces(t, r) }); err != nil {
				return err
			}
			for _, p := range r.GetPods() {
				if p.GetReady() && len(p.GetErrors()) > 0 {
					return command.ErrReported
				}
			}
			return nil
		},
	}
	out.AddFlag(cmd)
	env.AddConnectionFlags(cmd)
	return cmd
}

// writeNamespaces writes a table for each pod.
func writeNamespaces(t *command.Table, r *adminv1.ListNamespacesResponse) {
	for i, p := range r.GetPods() {
		if i > 0 {
			t.Line("")
		}
		state := ""
		if !p.GetReady() {
			state = ", not ready"
		}
		t.Line("pod %s/%s (%s%s)", p.GetNamespace(), p.GetName(), command.ShortID(p.GetId()), state)
		t.Row("KIND", "INODE", "SCOPE", "PROCESSES", "PATH")
		for _, ns := range p.GetNamespaces() {
			t.Row(ns.GetKind(), ns.GetInode(), namespaceScope(ns), memberList(ns.GetMembers()), ns.GetPath())
		}
		if len(p.GetUidMappings()) > 0 {
			t.Line("user ids: %s", mappingList(p.GetUidMappings()))
			t.Line("group ids: %s", mappingList(p.GetGidMappings()))
		}
		for _, e := range p.GetErrors() {
			t.Line("error: %s", e)
		}
	}
	if len(r.GetPods()) == 0 {
		t.Line("no pods")
	}
}

// namespaceScope returns who has the namespace: the host, the pod, or one container.
func namespaceScope(ns *adminv1.Namespace) string {
	switch members := ns.GetMembers(); {
	case ns.GetHost():
		return "host"
	case ns.GetPath() != "" || len(members) != 1 || members[0].GetContainerId() == "":
		return "pod"
	default:
		return members[0].GetName()
	}
}

// memberList returns the names and the process ids of processes.
func memberList(members []*adminv1.NamespaceMember) string {
	texts := make([]string, len(members))
	for i, m := range members {
		texts[i] = fmt.Sprintf("%s(%d)", m.GetName(), m.GetPid())
	}
	return strings.Join(texts, " ")
}

// mappingList returns mappings such as "0-65535 are 100000-165535".
func mappingList(mappings []*adminv1.IDMapping) string {
	texts := make([]string, len(mappings))
	for i, m := range mappings {
		texts[i] = fmt.Sprintf("%s are %s outside", idRange(m.GetInside(), m.GetLength()), idRange(m.GetOutside(), m.GetLength()))
	}
	return strings.Join(texts, ", ")
}

func idRange(first, length uint32) string {
	if length == 1 {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, uint64(first)+uint64(length)-1)
}
