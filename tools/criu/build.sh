#!/bin/bash
# Builds CRIU from Debian's source and installs the program as the file that the argument names. CRIU saves and
# restores the processes of containers. Debian 12 has a version that does not work on current kernels.
#
# The script downloads the unchanged source of upstream from the Debian archive of the host, checks the digest, and keeps
# the file in .cache.
#
# If CRIU cannot be built, the script links the criu in the PATH, if there is one. Otherwise the script makes no
# file, and the tests of checkpoints are skipped. Neither is an error.
set -euo pipefail

version=4.2.1
digest=29ec0ee09e296479fe7048c80980e8ef1d0684d0b0204c2b101dfea19f6725b9
name=criu_$version.orig.tar.xz

target=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
cache=$root/.cache/criu
archive=$cache/$name
mkdir -p "$cache" "$(dirname "$target")"

verify() { echo "$digest  $1" | sha256sum --check --status; }

download() {
  if [ -e "$archive" ] && verify "$archive"; then
    return 0
  fi
  local repository url
  while read -r repository; do
    url=${repository%/}/pool/main/c/criu/$name
    if curl -fsSL --connect-timeout 20 --max-time 300 -o "$archive.part" "$url" && verify "$archive.part"; then
      mv "$archive.part" "$archive"
      return 0
    fi
    echo "$url is not the source of CRIU $version with the expected digest" >&2
    rm -f "$archive.part"
  done < <(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sort -u)
  return 1
}

# The program needs no plugins, no encrypted migration and no documentation. The flags of an outer make are not for
# this build.
build() {
  local work=$1
  tar -xJf "$archive" -C "$work" --strip-components 1 || return 1
  echo "building CRIU $version"
  if ! env -u MAKEFLAGS -u MAKELEVEL make -C "$work" -j"$(nproc)" NO_GNUTLS=1 GITID=0 criu/criu >"$cache/build.log" 2>&1; then
    tail -n 40 "$cache/build.log" >&2
    return 1
  fi
  strip "$work/criu/criu" && install -m 755 "$work/criu/criu" "$target.part" && mv "$target.part" "$target"
}

work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
if "$root/hack/deps.sh" criu && download && build "$work"; then
  exit 0
fi
if installed=$(command -v criu); then
  echo "CRIU $version cannot be built: using $installed" >&2
  ln -sf "$installed" "$target"
  exit 0
fi
echo "CRIU $version cannot be built, and no criu is in the PATH: tests of checkpoints are skipped" >&2
