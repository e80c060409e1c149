package docs

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/test/harness"
)

// symptom is a fault that the test causes.
type symptom struct {
	name   string
	cause  string // script that causes the fault, and whose failure is not examined
	repair string // script that removes the cause; "" for none
	want   string // message as docs/troubleshooting.md quotes the message
}

const dropIn = "/etc/criserver/criserver.toml.d/symptom.toml"

// container is a script that creates the container $name of the image $image in the pod default/web, with the
// lines $more.
const container = `cat >$HOME/symptom.json <<END
{ "metadata": { "name": "$name" }, "image": { "image": "$image" }, "linux": {}, "command": ["sleep", "1000"] $more }
END
echo '{ "metadata": { "name": "web", "namespace": "default", "uid": "web" }, "linux": {} }' >$HOME/symptom-pod.json
crictl create ID $HOME/symptom.json $HOME/symptom-pod.json
`

var symptoms = []symptom{
	{
		name: "host port in use",
		cause: `echo '{ "metadata": { "name": "second", "namespace": "default", "uid": "second" }, "linux": {},
  "port_mappings": [{ "container_port": 80, "host_port": 8080 }] }' >$HOME/symptom.json
crictl runp $HOME/symptom.json`,
		want: `port_mappings: host port … is in use by pod sandbox "…" (…)`,
	},
	{name: "image is missing", cause: "name=missing image=registry.test/missing more=\n" + container, want: "config.image: …"},
	{
		name:   "host path is missing",
		cause:  "echo 'container.make_host_paths = false' >" + dropIn + "\ncriserver reload\nname=path image=docker.io/library/busybox\nmore=', \"mounts\": [{ \"container_path\": \"/data\", \"host_path\": \"/none/at/all\" }]'\n" + container,
		repair: "rm " + dropIn + "; criserver reload",
		want:   "config.mounts[…].host_path: …",
	},
	{name: "exec takes too long", cause: "crictl exec --sync --timeout 1 $(crictl ps -q --pod ID) sleep 100", want: "command timed out after …"},
	{
		name:   "exec in an exited container",
		cause:  "id=$(crictl ps -q --pod ID); crictl stop --timeout 0 $id; crictl exec --sync $id true",
		repair: "crictl rmp -f ID", // the next test creates the pod again
		want:   "the container is …",
	},
	{
		name:  "memory limit below the usage",
		cause: "crictl update --memory 4096 $(crictl ps -q --pod ID)",
		want:  "linux.memory_limit_in_bytes … must not be below what the container uses, … bytes, which the kernel cannot reclaim",
	},
	{name: "masquerading was deleted", cause: "nft delete table inet criserver_masquerade_criserver", want: "the table for masquerading was deleted by another program; the daemon restores the table"},
	{name: "host ports were deleted", cause: "nft delete table inet criserver_hostports_criserver", want: "the table of host ports was deleted by another program; the daemon restores the table"},
	{
		name:   "no network",
		cause:  "echo 'cni.default_bridge = false' >" + dropIn + "\ncriserver reload\nmv /etc/cni/net.d/10-criserver.conflist /etc/cni/kept",
		repair: "mv /etc/cni/kept /etc/cni/net.d/10-criserver.conflist; rm " + dropIn + "; criserver reload",
		want:   "no default network; pods cannot be attached",
	},
	{
		name: "plugin is missing",
		cause: `sed -i.kept 's/"type": "bridge"/"type": "absent"/' /etc/cni/net.d/10-criserver.conflist
for _ in $(seq 200); do criserver status || break; sleep 0.05; done`,
		repair: "mv /etc/cni/net.d/10-criserver.conflist.kept /etc/cni/net.d/10-criserver.conflist",
		want:   `CNI plugin "…" of network "…" (…) is not in …: install it there`,
	},
	{name: "unknown key", cause: "echo 'pods = 1' >" + dropIn + "\ncriserver --config /etc/criserver/criserver.toml", repair: "rm " + dropIn, want: "…: …: unknown key"},
	{name: "reload of an unknown key", cause: "echo 'pods = 1' >" + dropIn + "\nsystemctl reload criserver", repair: "rm " + dropIn + "; criserver reload", want: "the daemon keeps its configuration"},
	{name: "second daemon", cause: "criserver --socket /run/second.sock", want: "in use by another daemon"},
	{name: "user", cause: "setpriv --reuid 65534 --clear-groups criserver status", want: "the command needs root"},
	{name: "registry is blocked", cause: `printf '[[registry]]\nprefix = "blocked.test"\nlocation = "blocked.test"\nblocked = true\n' >/etc/containers/registries.conf.d/60-symptom.conf
criserver pull blocked.test/image`, repair: "rm /etc/containers/registries.conf.d/60-symptom.conf", want: `registry "…" of image … is blocked in registries.conf`},
	{name: "stacks", cause: "kill -USR1 $(</run/criserver-docs/pid)", repair: "rm -r /run/criserver/stacks", want: "stacks of all goroutines written"},
}

// TestSymptoms causes faults that docs/troubleshooting.md describes, and checks that the daemon or the command then
// prints the message that the page quotes.
func TestSymptoms(t *testing.T) {
	if testing.Short() {
		t.Skip("the test needs root, bin/ and the test images, which a test with -short does not need")
	}
	all := pages(t)
	var quoted []string
	for _, p := range all {
		for _, b := range p.blocks {
			if p.name == "docs/troubleshooting.md" && b.lang == "log" {
				quoted = append(quoted, strings.Split(b.text, "\n")...)
			}
		}
	}
	installed(t, all)
	if _, err := host.bash("mkdir -p " + dropIn[:strings.LastIndex(dropIn, "/")]); err != nil {
		t.Fatal(err)
	}
	for _, s := range symptoms {
		t.Run(s.name, func(t *testing.T) {
			if !slices.Contains(quoted, s.want) {
				t.Fatalf("docs/troubleshooting.md does not quote the message %q", s.want)
			}
			s.run(t)
		})
	}
}

// run causes the fault, and waits until the output of the commands or the log has the message.
func (s symptom) run(t *testing.T) {
	if err := host.pods(); err != nil {
		t.Fatalf("create the pods of the pages: %v", err)
	}
	script, err := host.fill(s.cause)
	if err != nil {
		t.Fatal(err)
	}
	before, err := host.bash("journalctl")
	if err != nil {
		t.Fatal(err)
	}
	// The log quotes the quotation marks of messages.
	want := regexp.MustCompile(strings.ReplaceAll(strings.ReplaceAll(regexp.QuoteMeta(s.want), "…", ".*"), `"`, `\\*"`))
	out, _, err := host.shell(script)
	if err != nil {
		t.Fatal(err)
	}
	var logged string
	for end := time.Now().Add(harness.Patience(10 * time.Second)); ; time.Sleep(50 * time.Millisecond) {
		journal, err := host.bash("journalctl")
		if err != nil {
			t.Fatal(err)
		}
		logged = strings.TrimPrefix(journal, before)
		if want.MatchString(out) || want.MatchString(logged) {
			break
		}
		if time.Now().After(end) {
			t.Errorf("got the output\n%s\nand the log\n%s\nwant the message %q", out, logged, s.want)
			break
		}
	}
	if s.repair == "" {
		return
	}
	repair, err := host.fill(s.repair)
	if err == nil {
		_, err = host.bash(repair)
	}
	if err != nil {
		t.Fatalf("repair: %v", err)
	}
}
