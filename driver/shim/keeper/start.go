package keeper

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"drover/driver/bundle"
	"drover/driver/cgroup"
	"drover/driver/rootfs"
	"drover/driver/runc"
	"drover/driver/shim"
)

// start makes the container and begins its process 1.
func (k *keeper) start() (net.Listener, error) {
	if err := k.detach(); err != nil {
		return nil, err
	}
	listener, err := shim.Listen(k.dir)
	if err != nil {
		return nil, err
	}
	if err := k.create(); err != nil {
		_ = listener.Close()
		return nil, err
	}
	if err := k.begin(); err != nil {
		_ = listener.Close()
		return nil, err
	}
	return listener, nil
}

// detach makes this process independent of who started it: its mounts, its cgroup, its place in the order of victims.
func (k *keeper) detach() error {
	var err error
	if k.wish, err = k.dir.Container(); err != nil {
		return err
	}
	if err := k.dir.SetShim(); err != nil {
		return err
	}
	// Nomad's unit protects its own processes from the kernel's killer; we are not part of that.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0); err != nil {
		return fmt.Errorf("reset oom_score_adj: %w", err)
	}
	if k.shared, err = openShared(k.wish.Mounts); err != nil {
		return err
	}
	// Unmounts of the host are to come through, and mounts of ours not to get out.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("detach mounts: %w", err)
	}
	if err := runc.RaiseLimits(k.wish.Limits.Ulimits); err != nil {
		return err
	}
	group, own, err := shim.Groups(k.wish)
	if err != nil {
		return err
	}
	k.group = group
	// To move a process the kernel first waits for every processor, some ten milliseconds. Others can be used meanwhile.
	k.joined = make(chan error, 1)
	go func() { k.joined <- own.Join(os.Getpid()) }()
	if err := k.killAll(); err != nil { // what an earlier start may have left
		return fmt.Errorf("clean the task's cgroup: %w", err)
	}
	if k.wish.CpusetCgroup != "" && k.wish.Limits.CPUSet != "" {
		if err := cgroup.SetCPUs(k.wish.CpusetCgroup, k.wish.Limits.CPUSet); err != nil {
			return err
		}
	}
	k.host, err = lookAtHost()
	return err
}

// create mounts the root file system and makes the container.
func (k *keeper) create() error {
	if err := k.lookUpOwner(); err != nil {
		return err
	}
	var err error
	k.wish.RootFS.SetUID = k.wish.Security.NewPrivileges
	if options := k.wish.Security.SELinux; len(options) > 0 {
		if k.labels.process, k.labels.mount, err = runc.Labels(options); err != nil {
			return err
		}
		k.wish.RootFS.MountLabel = k.labels.mount
	}
	if err := k.limitDisk(); err != nil {
		return err
	}
	mounting := time.Now()
	target, err := rootfs.Mount(k.wish.RootFS, k.wish.IDs, string(k.dir))
	if err != nil {
		return fmt.Errorf("mount root file system: %w", err)
	}
	k.mounting = time.Since(mounting)
	if k.root, err = runc.OpenRootfs(target); err != nil {
		return err
	}
	if k.logs, err = openLogs(k.wish); err != nil {
		return err
	}
	facts, err := k.gather(target)
	if err != nil {
		return err
	}
	spec, err := bundle.Spec(k.wish, facts)
	if err != nil {
		return err
	}
	k.container, err = runc.Create(runc.Options{
		State: k.dir.Runc(), ID: k.wish.ID, Spec: spec, CpusetCgroup: k.wish.CpusetCgroup, Filters: k.filters(),
	})
	if err != nil {
		return err
	}
	if k.container.Slow != nil {
		k.log.Warn("each process compiles its system call filter anew, which takes milliseconds", "error", k.container.Slow)
	}
	if err := k.startInit(spec.Process); err != nil {
		return err
	}
	return <-k.joined // the container has cgroups of its own, so that it need not wait for ours
}

// startInit starts process 1, which waits until it is told to begin.
func (k *keeper) startInit(spec *specs.Process) error {
	process := runc.Process{Spec: spec, Init: true, Stdout: k.logs.stdout, Stderr: k.logs.stderr}
	var err error
	switch {
	case k.wish.Work != nil:
		// Process 1 is the reaper, which learns from its standard input that we are no more.
		read, write, pipeErr := os.Pipe()
		if pipeErr != nil {
			return fmt.Errorf("make pipe: %w", pipeErr)
		}
		defer func() { _ = read.Close() }()
		k.lifeline = write
		process.Stdin, process.Stdout, process.Stderr = read, nil, nil
	case k.wish.Interactive && !k.wish.TTY:
		if process.Stdin, err = silence(); err != nil {
			return err
		}
		defer func() { _ = process.Stdin.Close() }()
	}
	if k.wish.Work == nil && k.wish.Init {
		if k.tending, err = newTending(); err != nil {
			return err
		}
		defer k.tending.handOver()
		process.Extra = k.tending.theirs
	}
	if k.init, err = k.container.Start(process); err != nil {
		return err
	}
	if k.init.Console != nil {
		if err := k.logs.copyConsole(k.init.Console); err != nil {
			return err
		}
	}
	return k.attach()
}

// begin lets process 1 go, and looks at the container from its inside from now on.
func (k *keeper) begin() error {
	if err := k.dir.SetInit(k.init.PID()); err != nil {
		return err
	}
	if err := k.setSysctls(); err != nil {
		return err
	}
	k.started = time.Now()
	if err := k.container.Begin(); err != nil {
		return err
	}
	if err := k.tending.begun(); err != nil {
		return fmt.Errorf("run %s: %w", k.wish.Process.Args[0], err)
	}
	inside, err := runc.OpenRootfs(filepath.Join("/proc", strconv.Itoa(k.init.PID()), "root"))
	if err != nil {
		return nil //nolint:nilerr // process 1 has ended already, and its root is not needed any more
	}
	_ = k.root.Close()
	k.root = inside
	return nil
}

// gather looks up what the bundle's rules need.
func (k *keeper) gather(target string) (bundle.Facts, error) {
	var u runc.User
	var err error
	if k.wish.Work == nil {
		if u, err = k.account(k.wish.Process.User); err != nil {
			return bundle.Facts{}, err
		}
	}
	facts := k.facts(u, k.wish.Process.Dir)
	facts.Rootfs = target
	facts.CgroupV2, facts.SwapLimits = k.host.cgroupV2, k.host.swapLimits
	facts.Arch = runtime.GOARCH
	facts.CgroupPath = k.group.Path()
	if facts.Init, err = os.Executable(); err != nil {
		return facts, fmt.Errorf("find own executable: %w", err)
	}
	if facts.Sys, err = k.mountSys(); err != nil {
		return facts, err
	}
	if k.wish.Mounts, err = k.pin(k.wish.Mounts); err != nil {
		return facts, err
	}
	if err := k.adoptCounted(); err != nil {
		return facts, err
	}
	k.mappable, k.mappableTree = idMappable(k.wish)
	facts.IDMappable, facts.IDMappableTree = k.mappable, k.mappableTree
	k.warnPlain()
	if facts.Nodes, err = k.makeNodes(); err != nil {
		return facts, err
	}
	if err := k.gatherSecurity(&facts); err != nil {
		return facts, err
	}
	return facts, k.writeEtc(&facts)
}

// writeEtc makes the files that say who the container is. They belong to the container's root, who may change them.
func (k *keeper) writeEtc(facts *bundle.Facts) error {
	dir := k.dir.Etc()
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	for _, file := range []struct {
		name, content string
		path          *string
	}{
		{"hosts", k.wish.Hosts, &facts.Hosts},
		{"resolv.conf", k.wish.ResolvConf, &facts.ResolvConf},
		{"hostname", lineOf(k.wish.Hostname), &facts.Hostname},
	} {
		if file.content == "" {
			continue
		}
		path := filepath.Join(dir, file.name)
		if err := os.WriteFile(path, []byte(file.content), 0o644); err != nil { //nolint:gosec // all users of the container read it
			return fmt.Errorf("write %s: %w", file.name, err)
		}
		owner, _ := k.wish.IDs.HostID(0)
		if err := os.Chown(path, int(owner), int(owner)); err != nil {
			return fmt.Errorf("own %s: %w", file.name, err)
		}
		*file.path = path
	}
	return nil
}

func lineOf(name string) string {
	if name == "" {
		return ""
	}
	return name + "\n"
}

// mountSys mounts a sysfs of the container's network namespace, for the container to bind.
func (k *keeper) mountSys() (string, error) {
	path := filepath.Join(string(k.dir), "sys")
	if err := os.MkdirAll(path, 0o711); err != nil {
		return "", fmt.Errorf("make %s: %w", path, err)
	}
	err := inNetNS(k.wish.NetNS, func() error {
		if k.wish.NetNS != "" {
			allowUnprivilegedNet()
		}
		if err := k.closeEgress(); err != nil {
			return err
		}
		flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
		if !k.wish.Security.Privileged {
			flags |= unix.MS_RDONLY
		}
		return unix.Mount("sysfs", path, "sysfs", flags, "")
	})
	if err != nil {
		return "", fmt.Errorf("prepare network and sysfs: %w", err)
	}
	return path, nil
}

// host is what this host gives us.
type host struct {
	capabilities []string
	hardLimits   map[string]uint64
	cgroupV2     bool
	swapLimits   bool
}

func lookAtHost() (host, error) {
	h := host{cgroupV2: cgroup.V2(), swapLimits: true}
	var err error
	if h.hardLimits, err = runc.HardLimits(); err != nil {
		return h, err
	}
	if !h.cgroupV2 {
		_, err := os.Stat(filepath.Join(cgroup.Root, "memory/memory.memsw.limit_in_bytes"))
		h.swapLimits = err == nil
	}
	h.capabilities, err = runc.BoundingCapabilities()
	return h, err
}
