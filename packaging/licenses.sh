#!/bin/bash
# Prints the licences and notices of all modules that the programs contain. Many of these licences ask for that.
# Usage: licenses.sh BUILD-TAGS
set -euo pipefail

CGO_ENABLED=0 go list -deps -tags "$1" -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' \
	./cmd/criserver ./cmd/conmon | LC_ALL=C sort -u | while read -r module version dir; do
	found=
	for file in "$dir"/{LICENSE,LICENCE,UNLICENSE,COPYING,COPYRIGHT,NOTICE,PATENTS}*; do
		if [ -f "$file" ]; then
			found=1
			printf '==== %s %s: %s ====\n\n' "$module" "$version" "${file##*/}"
			cat "$file"
			printf '\n'
		fi
	done
	if [ -z "$found" ]; then
		echo "licenses.sh: $module $version has no licence file in its top directory" >&2
		exit 1
	fi
done
