# Functions of the guided tours: a tour prints each step, runs its commands and checks their output. A tour defines
# shorten, which makes long paths and ids in a text short.

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' off=$'\e[0m'; else bold='' dim='' green='' red='' off=''; fi

step() { printf '\n%s%s%s\n' "$bold" "$*" "$off"; }
note() { printf '%s%s%s\n' "$dim" "$*" "$off"; }
good() { printf '  %s✓%s %s\n' "$green" "$off" "$*"; }
die() { printf '\n%sThe tour ends here: %s%s\n' "$red" "$*" "$off" >&2; exit 1; }

# show prints a command, runs it, and prints its output, which it keeps in `out`.
show() {
  printf '  $%s\n' "$(shorten "$(for a in "$@"; do case $a in *[\ \;\>]*) printf " '%s'" "$a" ;; *) printf ' %s' "$a" ;; esac; done)")"
  out=$("$@" 2>&1) || { printf '%s\n' "$out" | sed 's/^/    /'; die "$1 failed"; }
  if [ -n "$out" ]; then shorten "$out" | sed 's/^/    /'; fi
}

# has checks that the last output of show contains a string.
has() { case $out in *"$1"*) ;; *) die "expected to see \"$1\"${2:+ ($2)}" ;; esac; }
