#!/bin/bash
# Makes a Debian package from an installation in a directory, and checks that the package contains the files of the
# directory. Run it in the top directory of the source tree. The package is reproducible: all files have the time of the commit.
# Usage: deb.sh NFPM ARCH VERSION STAGE OUTPUT-DIRECTORY
# VERSION is the output of git describe.
set -euo pipefail

nfpm=$1 arch=$2 version=${3#v} stage=$4 out=$5

commit_time=$(git log -1 --format=%ct 2>/dev/null) || commit_time=${SOURCE_DATE_EPOCH:-0}

# debian_version translates the output of git describe. Debian sorts ~ before the end of a version and + after it:
#   1.2.0-rc.1             1.2.0~rc.1
#   1.2.0-4-g0123abc       1.2.0+4.g0123abc
#   0123abc (no tag)       0.0.0~20060102150405.g0123abc, in the order of the commits
debian_version() {
	local version=$1 dirty='' commits=''
	if [[ $version = *-dirty ]]; then
		version=${version%-dirty} dirty=.dirty
	fi
	if [[ $version =~ ^(.+)-([0-9]+)-(g[0-9a-f]+)$ ]]; then
		version=${BASH_REMATCH[1]} commits=+${BASH_REMATCH[2]}.${BASH_REMATCH[3]}
	fi
	if [[ ! $version =~ ^[0-9]+\.[0-9]+\.[0-9]+ ]]; then
		version=0.0.0-$(date -u -d "@$commit_time" +%Y%m%d%H%M%S).g${version:-unknown}
	fi
	version=${version/-/\~}
	version=${version//-/.}$commits
	if [[ -n $dirty && $version != *+* ]]; then
		dirty=+dirty
	fi
	echo "$version$dirty"
}

find "$stage" -exec touch -h -d "@$commit_time" {} +
mkdir -p "$out"
DEB_VERSION=$(debian_version "$version")
package=$out/criserver_${DEB_VERSION}_$arch.deb
ARCH=$arch DEB_VERSION=$DEB_VERSION STAGE=$stage SOURCE_DATE_EPOCH=$commit_time \
	"$nfpm" package --config packaging/nfpm.yaml --packager deb --target "$package" >/dev/null

# contents lists the files of a directory with their types, modes and digests.
contents() {
	(cd "$1" && find . -mindepth 1 -printf '%p %y %m %l\n' | LC_ALL=C sort &&
		find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
}
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
dpkg-deb -x "$package" "$unpacked"
if ! diff <(contents "$stage") <(contents "$unpacked"); then
	echo "deb.sh: $package does not contain the files of make install" >&2
	exit 1
fi
echo "$package"
