#!/bin/sh
# A CNI plugin that records its calls and can fail or block. Its directory contains:
#   calls            one line for each call
#   stdin-ADD, …     the configuration of the last call of the command
#   fail-ADD, …      the number of calls of the command that will fail
#   hold-ADD, …      the command blocks while this file exists
#   attached/ID@IF   the attached interfaces
dir=$(dirname "$0")
cat >"$dir/stdin-$CNI_COMMAND"
echo "$CNI_COMMAND $CNI_CONTAINERID ${CNI_NETNS:-none} $CNI_IFNAME" >>"$dir/calls"
while [ -e "$dir/hold-$CNI_COMMAND" ]; do sleep 0.02; done
case $CNI_COMMAND in
ADD) mkdir -p "$dir/attached" && : >"$dir/attached/$CNI_CONTAINERID@$CNI_IFNAME" ;;
esac
n=$(cat "$dir/fail-$CNI_COMMAND" 2>/dev/null || echo 0)
if [ "$n" -gt 0 ]; then
	echo $((n - 1)) >"$dir/fail-$CNI_COMMAND"
	echo '{"cniVersion":"1.1.0","code":11,"msg":"failure on command"}'
	exit 1
fi
case $CNI_COMMAND in
ADD)
	echo '{"cniVersion":"1.1.0","interfaces":[{"name":"'"$CNI_IFNAME"'","sandbox":"'"$CNI_NETNS"'"},{"name":"br0"}],
		"ips":[{"address":"10.1.2.1/24","interface":1},{"address":"10.1.2.3/24","interface":0},{"address":"fd00::3/64","interface":0}]}'
	;;
DEL) rm -f "$dir/attached/$CNI_CONTAINERID@$CNI_IFNAME" ;;
esac
