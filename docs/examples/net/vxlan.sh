#!/bin/sh
# Puts the bridges of several hosts under one overlay:
#   vxlan.sh DEVICE OWN-ADDRESS PEER-ADDRESS...
# Frames for a pod of another host leave DEVICE as UDP to port 4789. A frame
# grows by 50 bytes on the way, so pods get 1450 where DEVICE has 1500. Nothing
# is encrypted: the network between the hosts must be trusted.
set -eu
device=$1 own=$2
shift 2

ip link add cri0 type bridge
echo 0 >/proc/sys/net/ipv6/conf/cri0/accept_ra
ip link add vxlan90 type vxlan id 90 dstport 4789 dev "$device" local "$own"
ip link set vxlan90 mtu 1450 master cri0
# Where a frame goes whose receiver is not known yet: to every peer.
for peer; do
	bridge fdb append 00:00:00:00:00:00 dev vxlan90 dst "$peer"
done
ip link set cri0 up
ip link set vxlan90 up
