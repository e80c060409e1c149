#!/bin/sh
# Starts containerd as the runtime of a node of a cluster, for comparisons. `make cluster-test RUNTIME=containerd` uses
# this script. CLUSTER_SOCKET, CLUSTER_DIR and CLUSTER_REGISTRY come from the cluster; CLUSTER_HANDLER is the OCI runtime.
set -eu
top=$(cd "$(dirname "$0")/../../.." && pwd)
oci=$(command -v "${CLUSTER_HANDLER:-runc}")
mkdir -p "$CLUSTER_DIR/root"

for host in docker.io registry.k8s.io k8s.gcr.io gcr.io registry.test; do
  mkdir -p "$CLUSTER_DIR/certs.d/$host"
  cat >"$CLUSTER_DIR/certs.d/$host/hosts.toml" <<END
[host."http://$CLUSTER_REGISTRY/v2/$host"]
capabilities = ["pull", "resolve"]
override_path = true
END
done

cat >"$CLUSTER_DIR/config.toml" <<END
version = 3
root = "$CLUSTER_DIR/root"
state = "/run/containerd"

[grpc]
address = "$CLUSTER_SOCKET"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "registry.k8s.io/pause:3.9"

[plugins."io.containerd.cri.v1.images".registry]
config_path = "$CLUSTER_DIR/certs.d"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true # low values need a capability that the node does not have in a container

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["$top/bin/cni"]
conf_dir = "/etc/cni/net.d"
conf_template = "/etc/criserver/cni.template"

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "default"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.default]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.default.options]
BinaryName = "$oci"
SystemdCgroup = false
END

PATH=$top/bin/containerd:$PATH
export PATH
exec containerd --config "$CLUSTER_DIR/config.toml"
