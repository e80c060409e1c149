#!/bin/bash
# A guided tour of the daemon. It does the steps of `docker run -p` one by one, shows the objects that each step
# creates on the machine, and removes them at the end. Each step is checked; the first failure ends the tour.
#
# DEMO_IMAGE is an image in place of nginx; DEMO_PORT is the port on which it serves HTTP (default 80).
# CRISERVER_TEST_PATIENCE, an integer, multiplies all deadlines on a slow machine.
#
# The script needs a complete bin/ directory and the test images, but no Go. It works with cgroup v1 and v2. The daemon
# is not a systemd unit here, so it uses the cgroupfs driver.
set -euo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
bin=$top/bin
image=${DEMO_IMAGE:-docker.io/library/nginx:latest}
port=${DEMO_PORT:-80}
patience=${CRISERVER_TEST_PATIENCE:-1}
busybox=docker.io/library/busybox:latest
work= bridge= registry_pid= daemon_pid= hostport= forward= criu=

# --- output

. "$top/test/demo/story.sh"

# shorten removes the directory of the tour from paths, and all but the beginning of ids.
shorten() { printf '%s\n' "$1" | sed -E "s#$bin/##g; s#$work#\$W#g; s#\b([0-9a-f]{13})[0-9a-f]{51}\b#\1#g"; }

# page fetches a page, and waits for a server that has just been started. headlines prints its title and headings.
page() { command curl -sS --max-time $((5 * patience)) --retry 50 --retry-connrefused --retry-delay 0 --retry-max-time $((10 * patience)) "$1"; }
headlines() { grep -i -m2 -o -e '<title>.*</title>' -e '<h1>.*</h1>' || printf '(a page without headlines)\n'; }
curl() { page "$1" >"$work/page" || return; headlines <"$work/page"; }

# findmnt prints the options of a mount, one per line.
findmnt() { command findmnt -n -o FSTYPE,OPTIONS "$1" | tr ',' '\n' | grep -v -e relatime -e uuid; }

# --- setup and clean-up

crictl() { "$bin/crictl" --config "$work/crictl.yaml" "$@"; }
criserver() { "$bin/criserver" "$@"; }

# find_criu prints the path of a CRIU that works on this machine, if there is one.
find_criu() {
  for c in "$bin/criu" "$(command -v criu || true)"; do
    if [ -x "$c" ] && "$c" check >/dev/null 2>&1; then printf '%s' "$c"; return; fi
  done
}

prepare() {
  [ "$(id -u)" = 0 ] || die "containers need root"
  for f in criserver conmon runc crictl testimages cni/bridge; do [ -x "$bin/$f" ] || die "bin/$f is missing: run make build tools"; done
  work=$(mktemp -d /tmp/criserver-demo.XXXXXX)
  chmod 711 "$work" # users of pods with a user namespace must be able to enter
  bridge=demo$(printf '%x' $((RANDOM % 4096)))
  forward=$(cat /proc/sys/net/ipv4/ip_forward)
  subnet=10.$((200 + RANDOM % 50)).$((RANDOM % 250)).0/24
  mkdir -p "$work"/{cni,run,root,pod,logs,registries.conf.d}
  mount -t tmpfs -o mode=755 tmpfs "$work/run"
  tables=$(nft list tables)
  criu=$(find_criu)

  "$bin/testimages" serve -dir "$top/.cache/images" -registries-conf "$work/registries.conf" >"$work/registry.log" 2>&1 &
  registry_pid=$!
  until grep -q listening "$work/registry.log"; do kill -0 $registry_pid || die "the registry does not run: $(cat "$work/registry.log")"; sleep 0.1; done
  if [ -n "${DEMO_IMAGE:-}" ]; then # other images come from their own registries
    busybox=$image
    echo 'unqualified-search-registries = ["docker.io"]' >"$work/registries.conf"
    case $image in
    127.*/* | localhost*/*) printf '[[registry]]\nlocation = "%s"\ninsecure = true\n' "${image%%/*}" >>"$work/registries.conf" ;;
    esac
  fi
  for hostport in $(seq 8080 8180) ''; do
    [ -n "$hostport" ] || die "no free host port"
    (exec 3<>"/dev/tcp/127.0.0.1/$hostport") 2>/dev/null || break
  done

  cat >"$work/config.toml" <<E
root = "$work/root"
run_dir = "$work/run"
socket = "$work/run/criserver.sock"
cgroup_driver = "cgroupfs"
cgroup_parent = "/$(basename "$work")"
default_runtime = "runc"
nri.enable = false

[cni]
conf_dirs = ["$work/cni"]
bin_dirs = ["$bin/cni"]
default_bridge = false

[image]
registries_conf = "$work/registries.conf"
registries_conf_dir = "$work/registries.conf.d"

[monitor]
path = "$bin/conmon"

[checkpoint]
criu = "$criu"
restore_from_archives = true

[runtimes.runc]
path = "$bin/runc"
E
  cat >"$work/cni/10-demo.conflist" <<E
{
  "cniVersion": "1.0.0", "name": "$bridge",
  "plugins": [
    { "type": "bridge", "bridge": "$bridge", "isGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "hairpinMode": true,
      "ipam": { "type": "host-local", "dataDir": "$work/run/leases",
                "ranges": [[{ "subnet": "$subnet" }]], "routes": [{ "dst": "0.0.0.0/0" }] } },
    { "type": "portmap", "backend": "nftables", "capabilities": { "portMappings": true }, "snat": true }
  ]
}
E
  cat >"$work/crictl.yaml" <<E
runtime-endpoint: unix://$work/run/criserver.sock
image-endpoint: unix://$work/run/criserver.sock
timeout: $((30 * patience))
E
}

start_daemon() {
  "$bin/criserver" --config "$work/config.toml" >>"$work/daemon.log" 2>&1 &
  daemon_pid=$!
  disown $daemon_pid
  for _ in $(seq $((100 * patience))); do
    crictl version >/dev/null 2>&1 && return
    kill -0 $daemon_pid 2>/dev/null || die "the daemon exited: $(tail -5 "$work/daemon.log")"
    sleep 0.1
  done
  die "the daemon does not answer: $(tail -5 "$work/daemon.log")"
}

# ours lists the processes of the tour, by the directory in their command lines or by their cgroup.
ours() { grep -l -s -F -f <(basename "$work") /proc/[0-9]*/{cmdline,cgroup} 2>/dev/null | cut -d/ -f3 | sort -un | grep -v -x -e $$ -e "$registry_pid" || true; }

# end stops the daemon with SIGTERM, and returns whether it has exited.
end() {
  kill "$1" 2>/dev/null
  for _ in $(seq $((100 * patience))); do kill -0 "$1" 2>/dev/null || return 0; sleep 0.1; done
  return 1
}

# clean removes everything, however far the tour came.
clean() {
  local status=$?
  trap - EXIT INT TERM
  set +e
  if [ -n "$work" ] && [ -d "$work" ]; then
    [ $status = 0 ] || { printf '\nlast lines of the daemon'\''s log:\n'; tail -15 "$work/daemon.log" 2>/dev/null | cut -c1-400; tail -5 "$work"/logs/*.log 2>/dev/null; }
    if [ -n "$daemon_pid" ] && kill -0 "$daemon_pid" 2>/dev/null; then
      crictl rmp -a -f >/dev/null 2>&1
      end "$daemon_pid"
    fi
    for pid in $(ours); do kill -9 "$pid" 2>/dev/null; done
    [ -z "$registry_pid" ] || kill "$registry_pid" 2>/dev/null
    sleep 0.2
    ip link del "$bridge" 2>/dev/null
    tables_of_ours | while read -r t; do nft delete $t; done
    [ "$(cat /proc/sys/net/ipv4/ip_forward)" = "$forward" ] || echo "$forward" >/proc/sys/net/ipv4/ip_forward
    grep -F " $work" /proc/self/mountinfo | cut -d' ' -f5 | sort -r | while read -r m; do umount -l "$m" 2>/dev/null; done
    find /sys/fs/cgroup -depth -type d -path "*$(basename "$work")*" -exec rmdir {} \; 2>/dev/null
    rm -rf "$work"
  fi
  exit $status
}

# tables_of_ours lists the nft tables of the tour's network.
tables_of_ours() { nft list tables | grep -E -e "_$bridge\$" -e ' cni_(hostport|plugins_masquerade)$' | grep -v -x -F "${tables:-none}"; }

# --- tour

trap clean EXIT
trap 'exit 130' INT TERM
prepare

step "1. The daemon"
note "The daemon is one process that serves a socket. Here crictl is the client in place of the kubelet. All files are in $work."
start_daemon
show crictl version
has "RuntimeName:  criserver"

step "2. Images"
note "As docker pull.$([ -n "${DEMO_IMAGE:-}" ] || echo " The images were built on this machine and come from a registry on loopback.")"
show crictl pull "$image"
[ "$busybox" = "$image" ] || show crictl pull "$busybox"
show crictl images --digests=false
note "Each layer is one directory, named after the digest of its content and shared by all images:"
show ls "$work/root/layers"
layers_of() { crictl inspecti -o json "$1" | jq -r '(.info.imageSpec.rootfs.diff_ids // .info.rootfs.diff_ids // .info.diffIDs // .info.layers // [])[]' | sort; }
shared=$(comm -12 <(layers_of "$image") <(layers_of "$busybox") | wc -l)
if [ -z "${DEMO_IMAGE:-}" ]; then
  [ "$shared" -gt 0 ] || die "the two images should share a layer"
  good "nginx has $(layers_of "$image" | wc -l) layers, busybox $(layers_of "$busybox" | wc -l); $shared is stored once for both"
fi

step "3. A pod"
note "Like docker run before it starts a process: a network namespace, a veth pair, an address, a host port."
cat >"$work/pod/pod.json" <<E
{
  "metadata": { "name": "web", "namespace": "demo", "uid": "demo-web" }, "hostname": "web",
  "log_directory": "$work/logs",
  "port_mappings": [{ "container_port": $port, "host_port": $hostport }],
  "linux": {
    "cgroup_parent": "/$(basename "$work")/web",
    "security_context": { "namespace_options": { "pid": 1 } }
  }
}
E
container_json() { # name, further fields
  cat <<E
{
  "metadata": { "name": "$1" }, "image": { "image": "$image" }, "log_path": "$1.log", ${2:-}
  "labels": { "io.kubernetes.pod.name": "web", "io.kubernetes.pod.namespace": "demo" },
  "linux": {}
}
E
}
show cat "$work/pod/pod.json"
show crictl runp "$work/pod/pod.json"
pod=$out
show crictl pods
has Ready
address=$(crictl inspectp -o json "$pod" | jq -r .status.network.ip)

step "4. A container"
note "Image + pod + command. The container joins the pod's namespaces."
container_json server >"$work/pod/server.json"
show crictl create "$pod" "$work/pod/server.json" "$work/pod/pod.json"
container=$out
show crictl start "$container"
show crictl ps
has Running
pid=$(crictl inspect -o json "$container" | jq -r .info.pid)
show curl "http://$address:$port"
show ps -o pid,ppid,user,args --forest -p "$pid,$(ps -o ppid= -p "$pid" | tr -d ' '),$(pgrep -d, -P "$pid" || echo "$pid")"
note "Its parent is not the daemon ($daemon_pid) but a monitor process, so the container does not depend on the daemon."

step "5. The page"
note "At the address of the pod, which only this machine can reach:"
show curl "http://$address:$port"
first=$out
note "At the host port, as with docker run -p $hostport:$port:"
show curl "http://127.0.0.1:$hostport"
has "$first" "both ways lead to one page"
note "The output of the server, and a command in its container:"
show crictl logs --tail 3 "$container"
show crictl exec --sync "$container" sh -c 'hostname; id; ls -l /proc/1/exe'
has web

step "6. The network"
note "One end of a veth pair is eth0 in the pod's network namespace, which a bind mount holds …"
netns=$(find "$work/run/ns/$pod" -name net)
[ -n "$netns" ] || die "no network namespace pinned for the pod"
show nsenter --net="$netns" ip -brief addr
has "$address"
note "… the other end is a port of a bridge, which is the gateway of the pod …"
show ip -brief link show master "$bridge"
veth=$(printf '%s' "$out" | sed 's/@.*//')
[ -n "$veth" ] || die "the bridge has no ports"
note "… and the firewall forwards the host port to the pod, and masquerades outgoing connections of the pod."
note "One command shows all of it, as the kernel has it, and would name what is broken:"
show criserver network --config "$work/config.toml" "$pod"
for part in "$netns" "$address" "$veth" "forwarding, hairpin" "$address:$port" "criserver_hostports_$bridge" MASQUERADING "$subnet"; do has "$part"; done
note "The same for the whole node; criserver network --svg draws it as a picture:"
show criserver network --config "$work/config.toml"
has "$hostport→$port/tcp"

step "7. The file system"
note "An overlay mount combines the read-only layers of the image with a writable directory of the container."
rootfs=$(grep -F " overlay " /proc/self/mountinfo | cut -d' ' -f5 | grep -F "$work" | head -1)
[ -n "$rootfs" ] || die "no overlay mount"
show findmnt "$rootfs"
has upperdir=
# Kernels before 6.7 show no paths here, because the layers are mounted by file descriptors.
upper=$(find "$work/root" -type d -path "*/$container/upper")
[ -n "$upper" ] || die "no writable layer"
index=/usr/share/nginx/html/index.html
[ -z "${DEMO_IMAGE:-}" ] || index=/hello.html
note "Changes are written to that directory; the image does not change:"
show crictl exec --sync "$container" sh -c "echo \"<title>Changed in this container</title>\" > $index"
show find "$upper" -path "*$index" -printf '%M %s bytes  %P\n'
has "${index#/}"
if [ -z "${DEMO_IMAGE:-}" ]; then
  show curl "http://127.0.0.1:$hostport"
  has "Changed in this container"
fi
note "A second container of the image does not see the change:"
container_json second '"command": ["sh", "-c", "trap exit TERM; sleep 1000 & wait"],' >"$work/pod/second.json"
show crictl create "$pod" "$work/pod/second.json" "$work/pod/pod.json"
second=$out
show crictl start "$second"
show crictl exec --sync "$second" sh -c "grep -o -s \"<title>.*</title>\" $index || true"
case $out in *Changed*) die "the second container sees the change of the first one" ;; esac
good "copy-on-write: changes belong to one container"

step "8. The daemon is killed"
note "This is like a crash or an OOM kill. The containers are not children of the daemon."
before=$(page "http://127.0.0.1:$hostport" | sha256sum)
show kill -9 "$daemon_pid"
while kill -0 "$daemon_pid" 2>/dev/null; do sleep 0.05; done
show curl "http://127.0.0.1:$hostport"
good "the page is served without a daemon"
start_daemon
note "The restarted daemon finds the running containers:"
show crictl ps
has "${container:0:13}" "the same container"
has "${second:0:13}" "the second container"
[ "$(crictl inspect -o json "$container" | jq -r .info.pid)" = "$pid" ] || die "the process has changed"
[ "$(page "http://127.0.0.1:$hostport" | sha256sum)" = "$before" ] || die "the page has changed"
good "same id, same process $pid, same files, same page"

step "9. A checkpoint"
if [ -z "$criu" ]; then
  note "The tour leaves this step out, because no CRIU works on this machine: criu check fails, or there is no criu."
else
  note "A container counts. CRIU writes the memory of its processes to an archive; then the container is removed."
  counts() { cat "$work/logs/counter.log" 2>/dev/null | wc -l || true; }
  more() { for _ in $(seq $((100 * patience))); do [ "$(counts)" -gt "$1" ] && return; sleep 0.1; done; die "the container does not count"; }
  container_json counter '"command": ["sh", "-c", "i=0; while sleep 0.2; do i=$((i+1)); echo $i; done"],' |
    jq '.linux.security_context.namespace_options.pid = 1' >"$work/pod/counter.json" # a shared PID namespace is not supported
  show crictl create "$pod" "$work/pod/counter.json" "$work/pod/pod.json"
  counter=$out
  show crictl start "$counter"
  more 3
  show crictl checkpoint --export "$work/counter.tar" "$counter"
  show criserver checkpoint inspect "$work/counter.tar"
  has "container counter" "the description of the container in the archive"
  show crictl rm -f "$counter"
  last=$(counts)
  note "A new container, whose image is the archive, continues where the old container was:"
  jq --arg archive "$work/counter.tar" '.image.image = $archive' "$work/pod/counter.json" >"$work/pod/restored.json"
  show crictl create "$pod" "$work/pod/restored.json" "$work/pod/pod.json"
  counter=$out
  show crictl start "$counter"
  more $((last + 2))
  show crictl logs --tail 3 "$counter"
  [ "${out##*$'\n'}" -gt 4 ] || die "the container counts from the beginning"
  good "the container has reached ${out##*$'\n'}, and has not begun again"
  show crictl rm -f "$counter"
fi

step "10. Clean-up"
show crictl stopp "$pod"
show crictl rmp "$pod"
show crictl rmi -a
show crictl ps -a
end "$daemon_pid" || die "the daemon does not stop"
daemon_pid=
gone() { [ -z "$2" ] || die "$1 left: $2"; good "no $1"; }
gone processes "$(for p in $(ours); do ps -o pid=,args= -p "$p" || true; done)"
gone "mounts" "$(grep -F " $work" /proc/self/mountinfo | grep -v -F " $work/run " | cut -d' ' -f5 || true)"
gone "network namespaces" "$(find "$work/run" -path '*ns*' -name net)"
gone "veth pairs" "$(ip -o link show "$veth" 2>/dev/null || true)$(ip -o link show master "$bridge")"
gone "firewall rules for the pod" "$(nft list ruleset | grep -F -e "$pod" -e "$address" || true)"
gone "cgroups of pods or containers" "$(find /sys/fs/cgroup -mindepth 2 -type d -path "*$(basename "$work")*" | grep -E '[0-9a-f]{64}' || true)"
gone "addresses in use" "$(find "$work/run/leases" -name '[0-9]*' 2>/dev/null)"
gone "layers, images or containers on disk" "$(find "$work/root" "$work/run" -regextype posix-extended -regex '.*/[0-9a-f]{64}.*' 2>/dev/null)"
note "The bridge and the rules of the network remain for later pods; the tour removes them now."
printf '\n%sThat was all of it.%s\n' "$bold" "$off"
