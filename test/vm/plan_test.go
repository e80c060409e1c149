package vm

import "time"

// suite is something that runs in a guest.
type suite struct {
	name    string
	dir     string        // working directory, relative to the top of the project
	binary  string        // compiled test of that directory; "" for a plain command
	module  string        // directory of the Go module that the test belongs to; "" for the project's own
	args    []string      // arguments, or the command itself
	brief   []string      // further arguments without -full
	env     []string      // added to the environment
	timeout time.Duration // ends a part of the suite that hangs; a slow machine must not reach it
	reboot  []string      // arguments of a second part, which runs after a reboot of the guest
	long    bool          // runs only with -full
	part    bool          // does not run with -full, because a longer suite has its tests
	reports []string      // directories and files below dir to extract, besides the output
	extra   []string      // files and directories of guest.Optional that the suite needs
	memory  int           // of the guest, in MiB; 0 for the default
}

// guestPlan has the suites of one guest in the order in which they run.
type guestPlan struct {
	name   string // of the directory of reports; "" for the name of the guest
	guest  string
	long   bool
	alone  bool // runs before the other guests, not beside them
	suites []suite
}

// The selections are tests that depend on cgroups, kernel, security module or service manager.
const (
	cgroupSelection = `^Test(LimitsAfterSystemdReload|StatsOnCgroupV2|OOMKilledOnCgroupV2|OOMScoreAdjIsNotInherited|ThreadedCgroups|` +
		`UnitsOfPod|SlicesOfMissingPodsAreStopped|EveryLimitIsSetAndUpdated|MemoryLimitBelowUsage|PodResources|ClassesOfBlockIO|RecoveryAfterRestart)$`
	userNamespaceSelection = `^Test(UserNamespaceKernel|UserNamespaceVolumes|ImageVolumesInUserNamespace)$`
	kernelSelection        = `^Test(RecursiveReadOnly|SeccompProfiles|MissingConfinement|FileSystemsOfTheStore|RulesOfOtherOwners|OOMKilledOnCgroupV2)$`
	kubeletSelection       = `^TestStaticPods$/^pods$/^(everything_at_once|out_of_memory|mounts_are|an_image_as|containers_that_share|deletion)`
	// clusterSelection has what differs between a host with systemd, cgroup v2 and AppArmor and one without them. The
	// other tests take too long in a guest, or do not depend on the host.
	clusterSelection = `^Test(Network|Pods|Units|Leftovers|Availability|MemoryEviction)$`
	// arm64Selection covers exec, attach, logs and the restart of the daemon.
	arm64Selection = `^(TestContainerProcessFields|TestExecStreams|TestAttachToRunningContainer|TestStreamsAfterDaemonKill)$`
)

func life() suite {
	return suite{
		name: "systemd", dir: "test/systemd", module: "test/systemd", binary: "systemd.test", timeout: time.Hour,
		args: []string{"-test.v", "-test.run=TestInstall|TestLife|TestMonitors|TestBeforeReboot"}, brief: []string{"-test.short"},
		reboot: []string{"-test.v", "-test.run=TestAfterReboot|TestWipe|TestRemove"},
	}
}

// debianPackage runs after a suite that ends without an installation.
func debianPackage() suite {
	return suite{
		name: "systemd-package", dir: "test/systemd", module: "test/systemd", binary: "systemd.test", timeout: time.Hour,
		args: []string{"-test.v", "-test.run=^TestPackage$"},
	}
}

func critest(variant string, long bool) suite {
	return suite{
		name: "critest-" + variant, dir: "test/critest", module: "test/critest", binary: "critest.test", timeout: time.Hour, long: long,
		args: []string{"-test.v", "-test.run=TestCRI", "-variant=" + variant, "-procs=2"}, reports: []string{"report"},
	}
}

func system(name, run string, long bool, env ...string) suite {
	return suite{
		name: name, dir: "test/system", module: "test/system", binary: "system.test", timeout: 4 * time.Hour, long: long, env: env,
		args: []string{"-test.v", "-test.short", "-test.run=" + run, "-processes=3"}, // because tests wait, too
	}
}

func kubelet(name, run string, long bool, env ...string) suite {
	return suite{
		name: name, dir: "test/kubelet", module: "test/kubelet", binary: "kubelet.test", timeout: time.Hour, long: long, env: env,
		args: []string{"-test.v", "-test.run=" + run},
	}
}

// cluster runs below .cache, because the machines of a cluster hide /var, and /tmp is in memory.
func cluster() suite {
	return suite{
		name: "cluster", dir: "test/cluster", module: "test/cluster", binary: "cluster.test", timeout: 3 * time.Hour, long: true,
		args: []string{"-test.v", "-test.run=" + clusterSelection}, env: []string{"TMPDIR=" + project + "/.cache"},
		reports: []string{"report"}, extra: []string{"bin/kubernetes", "bin/upgrade"}, memory: 6144,
	}
}

// part marks a suite: -full leaves it out, because a longer suite in the same guest has its tests.
func part(s suite) suite {
	s.part = true
	return s
}

func demo() suite {
	return suite{name: "demo", dir: ".", args: []string{"test/demo/demo.sh"}, timeout: 20 * time.Minute, long: true}
}

const (
	cgroupfs = "CRISERVER_TEST_CGROUP_DRIVER=cgroupfs"
	crun     = "CRISERVER_TEST_RUNTIME=crun"
)

// plans are all guests with their suites.
var plans = []guestPlan{
	{guest: "trixie", suites: []suite{
		life(),
		debianPackage(),
		critest("crun", false),
		part(system("system-cgroups", cgroupSelection+"|"+userNamespaceSelection, false)),
		critest("default", true),
		critest("websocket", true),
		kubelet("kubelet", ".", true),
		demo(),
		system("system", ".", true),
		system("system-cgroupfs", cgroupSelection+"|"+kernelSelection+"|"+userNamespaceSelection, true, cgroupfs),
	}},
	{guest: "bookworm", suites: []suite{
		life(),
		debianPackage(),
		critest("default", false),
		part(system("system-kernel", kernelSelection, false)),
		part(kubelet("kubelet-pods", kubeletSelection, false)),
		critest("crun", true),
		critest("websocket", true),
		kubelet("kubelet", ".", true),
		demo(),
		system("system", ".", true),
		system("system-cgroupfs", cgroupSelection+"|"+kernelSelection+"|"+userNamespaceSelection, true, cgroupfs),
	}},
	// Requests in a cluster exceed their time limits while another guest takes the processor time.
	{name: "trixie-cluster", guest: "trixie", alone: true, suites: []suite{cluster()}},
	{guest: "selinux", long: true, suites: []suite{
		system("selinux", "SELinux", false),
		critest("crun", false),
		critest("default", false),
	}},
	{guest: "arm64", long: true, suites: []suite{
		{
			name: "systemd-install", dir: "test/systemd", module: "test/systemd", binary: "systemd.test", timeout: time.Hour,
			args: []string{"-test.v", "-test.run=^(TestInstall|TestRemove)$"},
		},
		debianPackage(),
		system("system-arm64", arm64Selection, false),
		system("system-arm64-crun", "^TestUserNamespaceIDs$", false, crun), // the guest's runc is too old for user namespaces
	}},
}
