#!/bin/bash
# Draws the pictures in docs/pictures from a running daemon with three pods. The daemon runs in network, mount and UTS
# namespaces of the script. Ids, MAC addresses, names of interfaces and inode numbers differ with each run, so the script
# replaces them by fixed ones: the picture of the network changes only if the drawing or the network changes. The trace
# shows the times of one run.
#
# The script needs root, bin/criserver, bin/conmon, bin/runc, bin/crictl, bin/testimages and the test images.
# CRISERVER_TEST_PATIENCE, an integer, multiplies all deadlines on a slow machine.
set -euo pipefail

top=$(cd "$(dirname "$0")/.." && pwd)
bin=$top/bin
pictures=${PICTURES_DIR:-$top/docs/pictures}
patience=${CRISERVER_TEST_PATIENCE:-1}

if [ -z "${PICTURES_INSIDE:-}" ]; then
  [ "$(id -u)" = 0 ] || { echo "make pictures needs root" >&2; exit 1; }
  PICTURES_INSIDE=1 exec unshare --net --mount --uts --propagation private "$0" "$@"
fi

work=$(mktemp -d /tmp/criserver-pictures.XXXXXX)
daemon_pid= registry_pid=

crictl() { "$bin/crictl" --config "$work/crictl.yaml" "$@"; }
criserver() { "$bin/criserver" "$@" --config "$work/config.toml"; }

# end stops a process of the script.
end() {
  kill "$1" 2>/dev/null || return 0
  for _ in $(seq $((100 * patience))); do kill -0 "$1" 2>/dev/null || return 0; sleep 0.1; done
  kill -9 "$1"
}

clean() {
  local status=$?
  trap - EXIT
  set +e
  [ $status = 0 ] || tail -n 5 "$work"/*.log
  [ -z "$daemon_pid" ] || { crictl rmp -a -f >/dev/null 2>&1; end "$daemon_pid"; }
  [ -z "$registry_pid" ] || end "$registry_pid"
  grep -F " $work" /proc/self/mountinfo | cut -d' ' -f5 | sort -r | while read -r m; do umount -l "$m"; done
  find /sys/fs/cgroup -depth -type d -path "*$(basename "$work")*" -exec rmdir {} \; 2>/dev/null
  rm -rf "$work"
  exit $status
}
trap clean EXIT
trap 'exit 130' INT TERM

# host gives the host of the picture an uplink with the addresses of documentation (RFC 5737, RFC 3849).
host() {
  hostname node1
  ip link set lo up
  ip link add ens3 type veth peer name switch
  ip link set switch up
  ip link set ens3 up
  ip addr add 192.0.2.10/24 dev ens3
  ip route add default via 192.0.2.1
  ip -6 addr add 2001:db8::10/64 dev ens3 nodad
  ip -6 route add default via 2001:db8::1
}

daemon() {
  chmod 711 "$work"
  mkdir -p "$work"/{cni,run,root,pods,logs,registries.conf.d}
  mount -t tmpfs -o mode=755 tmpfs "$work/run"
  "$bin/testimages" serve -dir "$top/.cache/images" -registries-conf "$work/registries.conf" >"$work/registry.log" 2>&1 &
  registry_pid=$!
  until grep -qs listening "$work/registry.log"; do kill -0 $registry_pid; sleep 0.1; done
  sed "s#/run/criserver/ipam#$work/run/ipam#" "$top/docs/examples/10-criserver.conflist" >"$work/cni/10-criserver.conflist"
  cat >"$work/config.toml" <<E
root = "$work/root"
run_dir = "$work/run"
socket = "$work/run/criserver.sock"
cgroup_driver = "cgroupfs"
cgroup_parent = "/$(basename "$work")"
default_runtime = "runc"
nri.enable = false
pod.netns_dir = ""
[cni]
conf_dirs = ["$work/cni"]
bin_dirs = ["$bin/cni"]
[image]
registries_conf = "$work/registries.conf"
registries_conf_dir = "$work/registries.conf.d"
[monitor]
path = "$bin/conmon"
[runtimes.runc]
path = "$bin/runc"
E
  cat >"$work/crictl.yaml" <<E
runtime-endpoint: unix://$work/run/criserver.sock
image-endpoint: unix://$work/run/criserver.sock
timeout: $((30 * patience))
E
  "$bin/criserver" --config "$work/config.toml" >"$work/daemon.log" 2>&1 &
  daemon_pid=$!
  for _ in $(seq $((100 * patience))); do
    crictl version >/dev/null 2>&1 && return
    kill -0 $daemon_pid
    sleep 0.1
  done
  echo "the daemon does not answer" >&2
  return 1
}

# pod runs a pod with containers: namespace, name, port mappings in JSON, names of containers.
pod() {
  local namespace=$1 name=$2 ports=$3 id container
  shift 3
  cat >"$work/pods/$name.json" <<E
{
  "metadata": { "name": "$name", "namespace": "$namespace", "uid": "$name" }, "hostname": "$name", "log_directory": "$work/logs",
  "port_mappings": $ports, "dns_config": { "servers": ["10.96.0.10"], "searches": ["$namespace.svc.cluster.local"], "options": ["ndots:5"] },
  "linux": { "cgroup_parent": "/$(basename "$work")/$name", "security_context": { "namespace_options": { "pid": 1 } } }
}
E
  id=$(crictl runp "$work/pods/$name.json")
  for container in "$@"; do
    cat >"$work/pods/$container.json" <<E
{
  "metadata": { "name": "$container" }, "image": { "image": "$image" }, "log_path": "$name-$container.log", "linux": {},
  "command": ["sh", "-c", "trap exit TERM; sleep 1000 & wait"]
}
E
    crictl start "$(crictl create "$id" "$work/pods/$container.json" "$work/pods/$name.json")" >/dev/null
  done
}

# constants replaces what differs between runs: ids, interfaces of the host, MAC addresses and inode numbers.
constants() {
  local script=$work/constants.sed n=0 id inode name veth mac fixed
  : >"$script"
  while read -r id inode name veth mac; do
    n=$((n + 1))
    fixed=$(printf '%s' "$name" | sha256sum | cut -c1-64)
    printf 's/%s/%s/g\n' "$id" "$fixed" "${id:0:13}" "${fixed:0:13}" "${id:0:12}" "${fixed:0:12}" "$veth" "veth${fixed:56:8}" "$mac" "02:00:00:00:00:0$n" \
      "network namespace $inode" "network namespace $((4026532200 + n))" >>"$script"
  done < <(criserver network -o json | jq -r '.pods[] | [.id, .netnsInode, .name] + (.interfaces[] | select(.link.name == "eth0") | [.host.name, .host.mac]) | join(" ")')
  printf 's/%s/02:00:00:00:00:10/g\n' "$(ip -json link show cri0 | jq -r '.[0].address')" >>"$script"
  sed -i -f "$script" "$@"
}

host
daemon
image=docker.io/library/busybox:latest
crictl pull "$image" >/dev/null
pod default web '[{ "container_port": 80, "host_port": 8080 }]' nginx log-collector
pod default db '[]' postgres
pod kube-system dns '[{ "protocol": 1, "container_port": 53, "host_port": 53, "host_ip": "127.0.0.1" }, { "container_port": 9153, "host_port": 9153 }]' coredns

# A picture is one command. Further pictures belong here.
mkdir -p "$pictures"
criserver network --svg --file "$pictures/three-pods.svg"
# The trace has the times of this run.
criserver trace default/web --svg >"$pictures/trace.svg"
constants "$pictures/three-pods.svg" "$pictures/trace.svg"
