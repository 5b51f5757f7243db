#!/bin/bash
# Runs the driver's tests in a virtual machine that has cgroup v2 alone, whatever this machine has.
#
#   make test-vm                                  everything, and its result into RESULTS.md
#   e2e/vm/run.sh driver/shim/keeper              the root tests of some packages
#   e2e/vm/run.sh e2e:'^TestDriver$' e2e/driver   some tests that need agents, or the real plugin
#   e2e/vm/run.sh --record e2e/driver             the same, and its result into RESULTS.md
#
# Everything is what `make root` and `make e2e` run for the driver: the packages below driver/ that have root tests, the
# tests of the plugin in real agents, the conformance list against the real plugin, Nomad's own suite. A part that fails
# does not keep the next from running; each has $DROVER_PART_SECONDS (an hour). $DROVER_STARTS tasks, 100, stand for the
# thousand that are started in a row elsewhere.
#
# Needs root (for debootstrap), and the packages debootstrap, e2fsprogs, qemu-system-x86. Without KVM the machine is
# emulated and slow: most of an hour for everything, and tests whose deadlines are tight may fail on a busy host. Debian's
# root file system and kernel are kept in the cache (~/.cache/drover/vm-…); remove that to get newer ones. The machine has
# no network and leaves nothing behind. It runs binaries that are built here: where tests build programs, a script in
# the place of `go` hands them over.
set -euo pipefail
cd "$(dirname "$0")/../.."

SUITE=trixie # its kernel maps ids on tmpfs (6.3) and does not tell exit statuses by pidfd (6.15): our fallback is tested
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/drover
INCLUDE=linux-image-cloud-amd64,iproute2,iptables,nftables,kmod,procps,ca-certificates,containernetworking-plugins,e2fsprogs,xfsprogs,apparmor,busybox-static
VM=$CACHE/vm-$(sha256sum <<<"$SUITE $INCLUDE" | head -c 8)
RESULTS=e2e/vm/RESULTS.md
STATIC=osusergo,netgo,static_build # libseccomp and libc are the host's

# Every package below driver/ with root tests, and two that look at what only this machine has.
everything() {
	{
		echo driver/apparmor
		echo driver/probe
		grep -rlE '^//go:build .*\broot\b' --include='*_test.go' driver | xargs -n1 dirname
	} | sort -u
	printf '%s\n' 'e2e:^TestDriver|^TestPlugin' e2e/driver e2e/conformance
}

record= all=
[ "${1:-}" != --record ] || { record=yes; shift; }
if [ $# = 0 ]; then
	all=yes
	mapfile -t parts < <(everything)
	set -- "${parts[@]}"
fi

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

# programs SOURCE INTO LDFLAGS builds plugin and shim of a source tree.
programs() {
	mkdir -p "$2"
	(cd "$1" && CGO_ENABLED=0 go build -trimpath -ldflags "$3" -o "$2/" ./cmd/nomad-driver-drover &&
		CGO_ENABLED=1 go build -trimpath -tags "seccomp,$STATIC" -ldflags "$3 -linkmode external -extldflags -static" -o "$2/" ./cmd/drover-shim)
}

# compile DIRECTORY FILE compiles a package's tests, the way they are run elsewhere.
compile() {
	case $1 in
	e2e/conformance) (cd "$1" && go test -c -tags e2e -o "$2" .) ;; # a module of its own
	e2e*) go test -c -tags e2e -o "$2" "./$1" ;;
	*) go test -c -tags "root,seccomp,$STATIC" -ldflags '-linkmode external -extldflags -static' -o "$2" "./$1" ;;
	esac
}

# What the machine is given: test binaries beside their testdata, the programs that tests build, Nomad.
payload() {
	local w=$work/w part dir run
	mkdir -p "$w/bin" "$w/path" "$w/cache/drover/bin"
	for part in "$@"; do
		dir=${part%%:*} run=.
		[ "$dir" = "$part" ] || run=${part#*:}
		mkdir -p "$w/$dir"
		[ -e "$w/$dir/tests" ] || compile "$dir" "$w/$dir/tests"
		[ ! -d "$dir/testdata" ] || cp -r "$dir/testdata" "$w/$dir/"
		printf '%s %s\n' "$dir" "$run" >>"$w/list"
		# A test compares the conformance list with the sources of the tests.
		[ "$dir" != e2e/driver ] || git ls-files -z '*_test.go' e2e/driver/CONFORMANCE.md | xargs -0 cp --parents -t "$w"
		[ "$dir" = e2e ] || continue
		[ -d "$w/jobs" ] || cp -r jobs "$w/"
		cp -u "$CACHE"/bin/nomad-* "$w/cache/drover/bin/"
		[[ ! TestDriver_upgrade =~ $run ]] || releases "$w"
	done
	CGO_ENABLED=0 go build -trimpath -o "$w/bin/" ./cmd/drover ./cmd/drover-lifecycle ./driver/drivertest/probe
	go build -tags e2e -o "$w/bin/" ./e2e/device
	programs . "$w/bin" ""
	cat >"$w/path/go" <<-'GO'
		#!/bin/bash
		# In the place of Go: hands over what was built outside, the version that was asked for.
		package=${!#} version=
		while [ $# -gt 0 ]; do
			case $1 in
			-o) target=$2 ;;
			-ldflags) [[ ! $2 =~ driver.Version=([^ ]+) ]] || version=${BASH_REMATCH[1]}/ ;;
			esac
			shift
		done
		[ ! -d "$target" ] || target+=/${package##*/}
		mkdir -p "$(dirname "$target")" && exec cp "/w/bin/$version${package##*/}" "$target"
	GO
	printf 'export DROVER_STARTS=%d DROVER_PART_SECONDS=%d\n' "${DROVER_STARTS:-100}" "${DROVER_PART_SECONDS:-3600}" >"$w/environment"
	cp e2e/vm/guest.sh "$w/init"
	chmod +x "$w/path/"* "$w/init"
}

# releases WORK builds what the test of upgrades builds, under the versions that it wants.
releases() {
	local first stamp="-X drover/driver.Version=0.0.1"
	programs . "$1/bin/0.0.1-old" "$stamp-old"
	first=$(sed -n 's/^const firstRelease = "\(.*\)"/\1/p' e2e/driver_upgrade_test.go)
	mkdir -p "$work/first"
	git archive "$first" 2>/dev/null | tar -x -C "$work/first" || return 0 # not in this checkout's history: the test is skipped
	programs "$work/first" "$1/bin/0.0.1-first" "$stamp-first"
	printf '#!/bin/bash\n# In the place of Git: the source of the first release, which nobody needs where Go builds nothing.\ntar -c -T /dev/null\n' >"$1/path/git"
}

# The rows of RESULTS.md for what the console shows. Of a part that did not end it tells which tests did.
rows() {
	awk -v commit="$commit" -v date="$(date -u +%F)" -v accel="${accel%%,*}" '
		function row(part, result, passed, failed, skipped, time) {
			gsub(/\|/, "\\|", part)
			printf "| `%s` | %s | %s | %d | %d | %d | %s | %s | %s, %s, %s |\n", part, result, commit, passed, failed, skipped, time, date, kernel, cgroup, accel
		}
		/^vm: Linux / { sub(/,/, ""); kernel = $3; cgroup = $4; next }
		/^vm: fails / { fails = fails " " $3; next }
		/^vm: .* passed, .* failed, .* skipped, .* s$/ {
			split($0, said, ": "); split(said[3], field, ", ")
			row(said[2], field[1] (fails ? ":" fails : ""), field[2], field[3], field[4], field[5])
			running = ""; next
		}
		/^vm: [^:]* [^:]*$/ { running = substr($0, 5); fails = ended = ""; count["PASS:"] = count["FAIL:"] = count["SKIP:"] = 0 }
		/^--- / { count[$2]++; if ($2 == "PASS:") ended = ended " " $3 }
		END { if (running) row(running, "did not end; passed:" ended, count["PASS:"], count["FAIL:"], count["SKIP:"], "") }
		' "$work/result"
}

# keep puts rows into RESULTS.md, in the place of those of the same parts; a run of everything replaces all.
keep() {
	local row name
	sed '/^| `/d' "$RESULTS" >"$work/RESULTS.md"
	{
		while IFS= read -r row; do
			name=${row#*\`}
			[ -n "$all" ] || grep -qF "| \`${name%%\`*}\` |" "$work/rows" || printf '%s\n' "$row"
		done < <(grep '^| `' "$RESULTS")
		cat "$work/rows"
	} | sort >>"$work/RESULTS.md"
	cp "$work/RESULTS.md" "$RESULTS"
	echo "vm: written to $RESULTS; commit it"
}

commit=$(git rev-parse --short=10 HEAD)
[ -z "$(git status --porcelain -- . ":!$RESULTS")" ] || commit+=" and changes"
[ -e "$VM/root.img" ] || system
payload "$@"
image "$work/w" 3G "$work/w.img"
# QEMU 7.2 emulates cmpxchg16b so that the flags are spoilt, and with a thread for each processor the kernel's patches of
# its own code are seen half done.
accel=tcg,thread=single cpu=Nehalem,-cx16
! grep -qwE 'vmx|svm' /proc/cpuinfo || [ ! -w /dev/kvm ] || accel=kvm cpu=max
timeout 5h qemu-system-x86_64 -accel $accel -cpu $cpu -smp 2 -m 3G -nographic -no-reboot -nic none \
	-kernel "$VM/kernel" -initrd "$VM/initrd" \
	-append "console=ttyS0 quiet panic=-1 mitigations=off root=/dev/vda rootfstype=ext4 rw" \
	-drive "file=$VM/root.img,if=virtio,format=raw,snapshot=on" -drive "file=$work/w.img,if=virtio,format=raw" \
	</dev/null 2>&1 | sed -un 's/\r$//; s/.*\(vm: Linux\)/\1/; /^vm: Linux/,/^vm: \(ok\|failed\)/p' | tee "$work/result" || true
rows >"$work/rows"
cat "$work/rows"
[ -z "$record" ] || keep
grep -q '^vm: ok' "$work/result"
