package guest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// setupVersion changes when the steps of a Setup change, so that cached disks are made again.
const setupVersion = "3"

// policyModule is the SELinux module that docs/security.md has operators install.
const policyModule = "docs/examples/criserver.cil"

// testModule labels the programs of the tests as policyModule labels installed programs. It also has what the policy
// lacks for the boot of Debian 13 and for the agent: journald searches the directory of its credentials, tmpfiles reads
// links, and journalctl reads the journal in the domain that initrc_t gives it.
const testModule = `
(allow syslogd_t tmpfs_t (dir (getattr search open read)))
(allow syslogd_t tmpfs_t (file (getattr open read)))
(allow systemd_tmpfiles_t bin_t (dir (getattr search open read)))
(allow systemd_tmpfiles_t bin_t (lnk_file (getattr read relabelfrom relabelto)))
(allow systemd_journal_init_t var_log_t (dir (getattr search open read)))
(allow systemd_journal_init_t systemd_journal_t (dir (getattr search open read watch)))
(allow systemd_journal_init_t systemd_journal_t (file (getattr open read map)))
(allow systemd_journal_init_t etc_runtime_t (file (getattr open read)))
(allow systemd_journal_init_t self (process (setrlimit)))
(filecon "/work" dir (system_u object_r usr_t ((s0) (s0))))
(filecon "/work/.*" any (system_u object_r usr_t ((s0) (s0))))
(filecon "/work/agent" file (system_u object_r bin_t ((s0) (s0))))
(filecon "/work/criserver/bin/.*" file (system_u object_r bin_t ((s0) (s0))))
(filecon "/work/criserver/bin/cni/.*" file (system_u object_r container_plugin_t ((s0) (s0))))
(filecon "/work/criserver/bin/(criserver|conmon|runc)" file (system_u object_r container_engine_exec_t ((s0) (s0))))
(filecon "/work/criserver/.*\.(test|sh)" file (system_u object_r bin_t ((s0) (s0))))
`

// labelWork labels the work disk before the agent starts. The disk has no labels, and systemd may not execute
// a program without a label.
const labelWork = `[Service]
ExecStartPre=/usr/sbin/restorecon -R /work
`

// enforce prepares a guest with Debian's SELinux policy in enforcing mode: it installs the modules and labels the
// files, so that the guest need not do so when it boots first.
func enforce(ctx context.Context, top, root string) error {
	module, err := os.ReadFile(filepath.Join(top, policyModule))
	if err != nil {
		return err
	}
	files := map[string]string{
		"etc/selinux/config":    "SELINUX=enforcing\nSELINUXTYPE=default\n",
		"var/tmp/criserver.cil": string(module),
		"var/tmp/tests.cil":     testModule,
		// The CRI validation suite adds capabilities to confined containers.
		"var/lib/selinux/default/active/booleans.local":                  "container_use_host_all_caps=1\n",
		"etc/systemd/system/criserver-test-agent.service.d/selinux.conf": labelWork,
	}
	for name, body := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"semodule", "-n", "-s", "default", "-i", "/var/tmp/criserver.cil", "-i", "/var/tmp/tests.cil"},
		{"setfiles", "-F", "/etc/selinux/default/contexts/files/file_contexts", "/"},
	} {
		if err := command(ctx, "chroot", append([]string{root}, args...)...); err != nil {
			return fmt.Errorf("prepare SELinux: %w", err)
		}
	}
	return nil
}
