#!/bin/bash
# Installs the Debian packages that building and testing need, and does nothing if all of them are installed.
# With the argument "criu" it also installs the packages for building CRIU, with "vm" those for building and booting
# guests, and with "vm-full" those for guests of another architecture.
set -euo pipefail

packages=(
  gcc libc6-dev libseccomp-dev pkg-config   # runc and the race detector need cgo
  iproute2 nftables iptables                # programs that CNI plugins and tests call
  procps util-linux mount curl jq ca-certificates # programs that the tests and the demo call
  e2fsprogs xfsprogs                        # file systems that tests create
  busybox-static                            # the process in containers of tests that need no image
  kmod                                      # loads br_netfilter for a cluster
  dbus-daemon                               # a system bus for the kubelet in a test of a cluster
  crun runsc                                # OCI runtimes in addition to runc, which is built from source
)
if [ "${1:-}" = criu ]; then
  packages+=(
    make xz-utils
    protobuf-compiler protobuf-c-compiler libprotobuf-dev libprotobuf-c-dev
    libnl-3-dev libnet1-dev libcap-dev uuid-dev
  )
fi
if [[ "${1:-}" = vm* ]]; then
  packages+=(
    debootstrap                             # creates the root file systems of guests
    qemu-system-x86                         # emulates guests
    git                                     # lists the files of the project that a guest gets
  )
fi
if [ "${1:-}" = vm-full ]; then
  packages+=(
    qemu-system-arm                         # emulates guests of arm64
    qemu-user-static                        # runs programs of arm64 while a guest is built
  )
fi

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" != 0 ]; then
  echo "missing packages, install them as root: ${missing[*]}" >&2
  exit 1
fi

# Packages must not start services, because the machine may be a workstation.
guard=
if [ ! -e /usr/sbin/policy-rc.d ]; then
  guard=/usr/sbin/policy-rc.d
  printf '#!/bin/sh\nexit 101\n' >"$guard"
  chmod 755 "$guard"
  trap 'rm -f "$guard"' EXIT
fi

echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" </dev/null >/dev/null
