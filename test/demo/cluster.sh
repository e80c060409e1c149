#!/bin/bash
# A guided tour of a Kubernetes cluster whose nodes run criserver. Each step is checked; the first failure ends the tour.
#
# The script needs a complete bin/ directory, with the programs of "make cluster-tools". Two tours can run at the same
# time. CRISERVER_TEST_PATIENCE, an integer, multiplies all deadlines on a slow machine.
set -euo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
bin=$top/bin
patience=${CRISERVER_TEST_PATIENCE:-1}
name=tour$$
dir=${TMPDIR:-/tmp}/criserver-cluster-$name
work='' cluster_pid=''
export KUBECONFIG=$dir/kubeconfig

. "$top/test/demo/story.sh"

shorten() { printf '%s\n' "$1" | sed -E "s#$bin/##g; s#$work#\$W#g; s#$dir#\$CLUSTER#g; s#\b([0-9a-f]{13})[0-9a-f]{51}\b#\1#g"; }

# kubectl and on are the commands of the tour: on runs a command on a node, or on the host "control" of the LAN.
kubectl() { "$bin/kubernetes/kubectl" "$@"; }
on() { "$bin/cluster" node -name "$name" "$@"; }
curl() { command curl -sS --max-time $((5 * patience)) "$@"; }

# await repeats a command until it succeeds.
await() {
  for _ in $(seq $((100 * patience))); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
  die "$* did not succeed in time"
}

clean() {
  local status=$?
  trap - EXIT INT TERM
  set +e
  if [ $status != 0 ] && [ -d "$dir" ]; then
    printf '\nlast lines of the logs:\n'
    tail -n 4 "$dir"/nodes/*/var/log/criserver.log | cut -c1-300
    kubectl get pods -A -o wide 2>/dev/null
  fi
  "$bin/cluster" down -name "$name" || status=1
  [ -z "$cluster_pid" ] || wait "$cluster_pid"
  [ -z "$work" ] || rm -rf "$work"
  exit $status
}

trap clean EXIT
trap 'exit 130' INT TERM
[ "$(id -u)" = 0 ] || die "a cluster needs root"
[ -x "$bin/cluster" ] || die "bin/cluster is missing: run make cluster-tools"
work=$(mktemp -d /tmp/criserver-tour.XXXXXX)

step "1. A cluster"
note "etcd, API server, controllers and scheduler in one network namespace, which is also the LAN; two nodes in namespaces"
note "of their own, each with criserver, a kubelet and kube-proxy."
began=$SECONDS
"$bin/cluster" up -name "$name" -nodes 2 -top "$top" >"$work/cluster.log" 2>&1 &
cluster_pid=$!
until grep -s -q 'The cluster .* runs' "$work/cluster.log"; do
  kill -0 $cluster_pid 2>/dev/null || die "the cluster did not start: $(cat "$work/cluster.log")"
  sleep 0.1
done
good "ready after $((SECONDS - began)) s"
show kubectl get nodes -o wide
has "criserver://"
note "The daemons of a node, as a process list of the node shows them:"
show on node1 ps -e -o pid,ppid,args --cols 100
for part in criserver kubelet kube-proxy; do has "$part"; done

step "2. A web application"
note "Four replicas on two nodes, with probes, a Service with a port on every node, and a DNS name."
cat >"$work/web.yaml" <<'E2'
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxSurge: 2, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: web}}
    spec:
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: nginx
        image: docker.io/library/nginx:latest
        env:
        - {name: VERSION, value: "1"}
        - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        command: [sh, -c, 'echo "version $VERSION on $NODE" >/usr/share/nginx/html/index.html; exec nginx -g "daemon off;"']
        ports: [{containerPort: 80}]
        readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 2}}}
        resources: {requests: {cpu: 20m, memory: 16Mi}, limits: {memory: 64Mi}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, nodePort: 30080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: docker.io/library/busybox:latest, command: [sleep, "100000"]}]
E2
show kubectl apply -f "$work/web.yaml"
began=$SECONDS
show kubectl rollout status deployment/web --timeout=$((60 * patience))s
good "running after $((SECONDS - began)) s"
show kubectl get pods -l app=web -o wide
has node1
has node2
show kubectl wait --for=condition=Ready pod/client --timeout=$((60 * patience))s

step "3. The Service"
note "By its DNS name, from a pod. The pods of both nodes answer:"
show kubectl exec client -- sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do wget -q -O - http://web.default.svc.cluster.local; done | sort | uniq -c'
has "version 1 on node1"
has "version 1 on node2"
note "By the port of a node, from a host of the LAN:"
show on control curl -s http://10.243.0.11:30080
has "version 1"
show on control curl -s http://10.243.0.12:30080
has "version 1"

step "4. Logs, exec, copy, port forwarding"
pod=$(kubectl get pods -l app=web --field-selector spec.nodeName=node2 -o 'jsonpath={.items[0].metadata.name}')
show kubectl logs --tail=2 "$pod"
has "GET / HTTP"
show kubectl exec "$pod" -- sh -c 'hostname; id -u'
has "$pod"
head -c 3000000 /dev/urandom >"$work/data"
show kubectl cp "$work/data" "$pod:/tmp/data"
show kubectl cp "$pod:/tmp/data" "$work/copy"
cmp "$work/data" "$work/copy" || die "the copies differ"
good "3 MB copied there and back"
kubectl port-forward "pod/$pod" :80 >"$work/forward" 2>&1 &
forward_pid=$!
await grep -q 'Forwarding from 127' "$work/forward"
port=$(sed -n 's/.*127.0.0.1:\([0-9]*\) .*/\1/p' "$work/forward")
note "kubectl port-forward has port $port of this machine:"
show curl "http://127.0.0.1:$port"
has "version 1 on node2"
kill $forward_pid
wait $forward_pid 2>/dev/null || true

step "5. A rolling update while a daemon is killed"
note "A client on the LAN sends requests all the time. In the middle of the update the criserver of node1 is killed."
on control sh -c 'while :; do curl -s -S --max-time 20 http://10.243.0.11:30080 2>&1 || echo FAILED; sleep 0.05; done' >"$work/answers" &
client_pid=$!
await grep -q 'version 1' "$work/answers"
show kubectl set env deployment/web VERSION=2
await grep -q 'version 2' "$work/answers"
# awk reads to the end, because a pipe that ends early fails the command before it.
daemon=$(on node1 sh -c 'cat /proc/[0-9]*/status 2>/dev/null' | awk '$1 == "Name:" { n = $2 } $1 == "Pid:" && n == "criserver" && !pid { pid = $2 } END { print pid }')
show on node1 kill -9 "$daemon"
show kubectl rollout status deployment/web --timeout=$((120 * patience))s
await on node1 criserver status
show on node1 criserver status
has "runtime     ready"
show kubectl get pods -l app=web -o wide
show kubectl exec client -- sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do wget -q -O - http://web; done | sort | uniq -c'
has "version 2 on node1"
has "version 2 on node2"

step "6. A drain"
began=$SECONDS
show kubectl drain node2 --ignore-daemonsets --delete-emptydir-data --force --timeout=$((60 * patience))s
good "drained in $((SECONDS - began)) s"
show kubectl rollout status deployment/web --timeout=$((60 * patience))s
show kubectl get pods -l app=web -o wide
case $out in *node2*) die "a pod is still on node2" ;; esac
show kubectl uncordon node2
# Killing the command kills its shell, too, because the terminal is not its own.
kill $client_pid
wait $client_pid 2>/dev/null || true
sort "$work/answers" | uniq -c | sed 's/^/    /'
if grep -v -q -x 'version [12] on node[12]' "$work/answers"; then die "requests of the client have failed"; fi
good "the client has received $(wc -l <"$work/answers") answers, and no request has failed"
kubectl scale deployment/web --replicas=6 >/dev/null
kubectl rollout status deployment/web --timeout=$((60 * patience))s >/dev/null
kubectl exec client -- true

step "7. What criserver made of it"
for node in node1 node2; do
  # The daemon of node1 has timelines only of pods that started after its restart, as the newest pod did.
  pod=$(kubectl get pods -l app=web --field-selector "spec.nodeName=$node,status.phase=Running" \
    --sort-by .metadata.creationTimestamp -o 'jsonpath={.items[-1:].metadata.name}')
  note "$node: networks, and one pod in detail: namespaces, layers, limits, and the steps of its start."
  show on $node criserver network
  has "$pod"
  show on $node criserver namespaces "default/$pod"
  has net
  show on $node criserver layers "default/$pod/nginx"
  has upper
  show on $node criserver cgroup "default/$pod/nginx"
  has memory
  show on $node criserver trace "default/$pod"
  has nginx
  show on $node criserver top --count 1
  has "$pod"
done

step "8. Clean-up"
show kubectl delete --timeout=$((60 * patience))s -f "$work/web.yaml"
kubectl delete --timeout=$((60 * patience))s -n kube-system deployment/coredns >/dev/null
for node in node1 node2; do
  await on $node sh -c '[ -z "$(crictl pods -q)" ]'
  show on $node criserver status
  has "0 ready, 0 not ready"
  [ -z "$(on $node ip -o link show type veth | grep -v eth0)" ] || die "veth pairs of pods remain on $node"
  [ -z "$(on $node grep -E ' (/run/criserver/|/var/lib/kubelet/pods/|/run/netns/)' /proc/self/mountinfo)" ] || die "mounts of pods remain on $node"
  good "no pods, mounts and veth pairs on $node"
done
show "$bin/cluster" down -name "$name"
wait $cluster_pid
cluster_pid=
[ ! -e "$dir" ] || die "$dir exists"
[ -z "$(find /sys/fs/cgroup -maxdepth 3 -type d -path "*/criserver-cluster/$name")" ] || die "cgroups of the cluster exist"
good "no files, no cgroups, no processes of the cluster on this machine"
printf '\n%sThat was all of it.%s\n' "$bold" "$off"
