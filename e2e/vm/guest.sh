#!/bin/bash
# Process 1 of the virtual machine of run.sh: makes the system as systemd would, runs the parts that /w/list names one after
# the other, whatever becomes of them, says what came of each, and powers off.
export PATH=/w/path:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root XDG_CACHE_HOME=/w/cache
. /w/environment
ulimit -Hn 524288; ulimit -n 65536
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
for name in $(cat /sys/fs/cgroup/cgroup.controllers); do echo "+$name" >/sys/fs/cgroup/cgroup.subtree_control; done
mkdir -p /dev/pts /dev/shm /dev/mqueue
mountpoint -q /dev/pts || mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security
mount -t tmpfs shm /dev/shm; mount -t mqueue mqueue /dev/mqueue; mountpoint -q /run || mount -t tmpfs run /run
mount --make-rshared / # as systemd does
[ -e /dev/fd ] || ln -s /proc/self/fd /dev/fd
for module in overlay xfs quota_v2 bridge veth loop dummy nft_chain_nat nft_masq xt_comment xt_conntrack xt_MASQUERADE; do modprobe -q $module; done
ip link set lo up; ip link add dummy0 type dummy; ip addr add 192.0.2.2/24 dev dummy0; ip link set dummy0 up
ip route add default via 192.0.2.1
dmesg -n 1

# What tests must not leave: cgroups of tasks, mounts of theirs, shims.
leftovers() {
	find /sys/fs/cgroup -mindepth 1 -type d | grep -E 'drover-.*/|\.scope'
	grep -E 'drover|/task/' /proc/self/mountinfo
	find /proc -maxdepth 2 -path '/proc/[0-9]*/exe' -lname '*/drover-shim' 2>/dev/null
}

count() { grep -ac -- "--- $1" /tmp/out; }

# part DIRECTORY PATTERN runs one part.
part() {
	local began=$SECONDS status=passed
	echo "vm: $1 $2"
	leftovers >/tmp/before
	# Into a file: who is left behind may hold a pipe open.
	(cd "/w/$1" && exec timeout -k 10 "$((DROVER_PART_SECONDS + 60))" ./tests -test.run "$2" -test.v -test.timeout "${DROVER_PART_SECONDS}s") </dev/null >/tmp/out 2>&1 &
	tail -n +1 -f --pid=$! /tmp/out | grep --line-buffered -aE '^--- '
	wait $! || {
		status=failed
		grep -avE '^=== |--- (PASS|SKIP)' /tmp/out
		sed -n 's/^--- FAIL: \([^ ]*\).*/vm: fails \1/p' /tmp/out
	}
	leftovers | grep -vxFf /tmp/before >/tmp/left && {
		status="left something behind"
		sed 's/^/vm: left behind: /' /tmp/left
	}
	[ "$status" = passed ] || failed+=" $1"
	echo "vm: $1 $2: $status, $(count PASS) passed, $(count FAIL) failed, $(count SKIP) skipped, $((SECONDS - began)) s"
}

echo "vm: Linux $(uname -r), $(stat -fc %T /sys/fs/cgroup)"
failed=
while read -r dir run; do part "$dir" "$run"; done </w/list
[ -n "$failed" ] && echo "vm: failed:$failed" || echo "vm: ok"
sync
echo o >/proc/sysrq-trigger
sleep 60
