#!/bin/bash
# Runs the driver's tests in a virtual machine that has cgroup v2 alone, whatever this machine has.
#
#   make vm                                    the root tests of driver/..., and the driver's e2e tests
#   e2e/vm/run.sh driver/shim/keeper           the root tests of some packages
#   e2e/vm/run.sh e2e:'^TestDriver$'           some e2e tests
#
# Needs root (for debootstrap), and the packages debootstrap, e2fsprogs, qemu-system-x86. Without KVM the machine is
# emulated and slow: a quarter of an hour for everything, and tests whose deadlines are tight may fail on a busy host. Debian's
# root file system and kernel are kept in the cache (~/.cache/drover/vm-…); remove that to get newer ones. The machine has
# no network and leaves nothing behind. It runs binaries that are built here: where tests build programs, a script in
# the place of `go` hands them over.
set -euo pipefail
cd "$(dirname "$0")/../.."

SUITE=trixie # its kernel maps ids on tmpfs (6.3) and does not tell exit statuses by pidfd (6.15): our fallback is tested
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/drover
INCLUDE=linux-image-cloud-amd64,iproute2,iptables,nftables,kmod,procps,ca-certificates,containernetworking-plugins,e2fsprogs,xfsprogs,apparmor
VM=$CACHE/vm-$(sha256sum <<<"$SUITE $INCLUDE" | head -c 8)
ROOT_PACKAGES="driver/cgroup driver/quota driver/rootfs driver/unpack driver/image driver/shim driver/shim/keeper"
[ $# -gt 0 ] || set -- $ROOT_PACKAGES 'e2e:^TestDriver'

for program in debootstrap mke2fs qemu-system-x86_64; do
	PATH=$PATH:/sbin:/usr/sbin command -v $program >/dev/null || {
		echo "vm: $program is missing: apt-get install debootstrap e2fsprogs qemu-system-x86" >&2
		exit 1
	}
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The machine's root file system and kernel, once.
system() {
	local root=$work/root
	echo "vm: making a root file system of Debian $SUITE" >&2
	debootstrap --variant=minbase --include="$INCLUDE" "$SUITE" "$root" ${MIRROR:+"$MIRROR"} >"$work/debootstrap.log" || { tail "$work/debootstrap.log" >&2; exit 1; }
	mkdir -p "$root/w" "$VM"
	printf '#!/bin/bash\nmount /dev/vdb /w && exec /w/init\n' >"$root/usr/sbin/init"
	chmod +x "$root/usr/sbin/init"
	rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
	cp "$root"/boot/vmlinuz-* "$VM/kernel"
	cp "$root"/boot/initrd.img-* "$VM/initrd"
	image "$root" 3G "$VM/root.new"
	rm -rf "$root"
	mv "$VM/root.new" "$VM/root.img"
}

# image DIRECTORY SIZE FILE makes an ext4 file system of a directory.
image() {
	truncate -s "$2" "$3"
	mke2fs -q -t ext4 -d "$1" "$3"
}

# What the machine is given: test binaries beside their testdata, the programs that tests build, Nomad.
payload() {
	local w=$work/w what dir
	mkdir -p "$w/bin" "$w/path" "$w/cache/drover/bin"
	for what in "$@"; do
		dir=${what%%:*}
		mkdir -p "$w/$dir"
		go test -c -tags "$([ "$dir" = e2e ] && echo e2e || echo root)" -o "$w/$dir/tests" "./$dir"
		[ ! -d "$dir/testdata" ] || cp -r "$dir/testdata" "$w/$dir/"
		[ "$dir" != e2e ] || cp -r jobs "$CACHE"/bin/nomad-* "$w/"
		printf '%s %s\n' "$dir" "$([ "$dir" = "$what" ] && echo . || echo "${what#*:}")" >>"$w/list"
	done
	mv "$w"/nomad-* "$w/cache/drover/bin/" 2>/dev/null || true
	CGO_ENABLED=0 go build -trimpath -o "$w/bin/" ./cmd/drover ./cmd/nomad-driver-drover ./cmd/drover-lifecycle ./driver/drivertest/probe
	CGO_ENABLED=1 go build -trimpath -tags seccomp,osusergo,netgo,static_build \
		-ldflags '-linkmode external -extldflags -static' -o "$w/bin/" ./cmd/drover-shim
	cat >"$w/path/go" <<-'GO'
		#!/bin/bash
		package=${!#}
		while [ $# -gt 0 ]; do [ "$1" != -o ] || target=$2; shift; done
		[ ! -d "$target" ] || target+=/${package##*/}
		mkdir -p "$(dirname "$target")" && exec cp "/w/bin/${package##*/}" "$target"
	GO
	chmod +x "$w/path/go"
	guest >"$w/init"
	chmod +x "$w/init"
}

# Process 1 of the machine.
guest() {
	cat <<-'INIT'
		#!/bin/bash
		export PATH=/w/path:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root XDG_CACHE_HOME=/w/cache
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
		echo "vm: Linux $(uname -r), $(stat -fc %T /sys/fs/cgroup)"
		failed=
		while read -r dir run; do
			cd "/w/$dir" || continue
			echo "vm: $dir $run"
			./tests -test.run "$run" -test.v -test.timeout 20m </dev/null >/tmp/out 2>&1 || { failed+=" $dir"; grep -vE '^=== |--- PASS' /tmp/out; }
			echo "vm: $dir: $(grep -c -- '--- PASS' /tmp/out) passed, $(grep -c -- '--- FAIL' /tmp/out) failed"
		done </w/list
		left=$(find /sys/fs/cgroup -mindepth 1 -type d | grep -E 'drover-|\.scope'; grep -E 'drover|/task/' /proc/self/mountinfo)
		[ -z "$left" ] || { echo "vm: left behind:"; echo "$left"; failed+=" leftovers"; }
		[ -n "$failed" ] && echo "vm: failed:$failed" || echo "vm: ok"
		sync
		echo o >/proc/sysrq-trigger
		sleep 60
	INIT
}

[ -e "$VM/root.img" ] || system
payload "$@"
image "$work/w" 3G "$work/w.img"
# QEMU 7.2 emulates cmpxchg16b so that the flags are spoilt, and with a thread for each processor the kernel's patches of
# its own code are seen half done.
accel=tcg,thread=single cpu=Nehalem,-cx16
! grep -qwE 'vmx|svm' /proc/cpuinfo || [ ! -w /dev/kvm ] || accel=kvm cpu=max
timeout 3600 qemu-system-x86_64 -accel $accel -cpu $cpu -smp 2 -m 3G -nographic -no-reboot -nic none \
	-kernel "$VM/kernel" -initrd "$VM/initrd" \
	-append "console=ttyS0 quiet panic=-1 mitigations=off root=/dev/vda rootfstype=ext4 rw" \
	-drive "file=$VM/root.img,if=virtio,format=raw,snapshot=on" -drive "file=$work/w.img,if=virtio,format=raw" \
	</dev/null 2>&1 | tee "$work/console" | sed -n 's/\r$//; s/.*\(vm: Linux\)/\1/; /^vm: Linux/,$p'
grep -q '^vm: ok' "$work/console"
