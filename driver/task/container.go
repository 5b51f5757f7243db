package task

import (
	"errors"
	"path"
	"path/filepath"

	"code.cloudfoundry.org/bbs/models"

	"drover/driver"
	"drover/driver/cdi"
)

// facts are everything that a container is assembled from. Nothing in here is looked up again.
type facts struct {
	req  Request
	node Config
	// id is the container's, guid Diego's name for this start of an instance.
	id, guid string
	ids      driver.IDRange
	// profile is the seccomp profile that the job names, apparmor the AppArmor profile; empty for the default and for none.
	profile  []byte
	apparmor string
	// nodeName is the node's host name, for tasks that share it.
	nodeName string
	layers   []driver.Layer
	// imageLayers is how many of the layers are the root file system's own: those above are droplets and the like.
	imageLayers int
	image       driver.ImageConfig
	// info and def are set for tasks with run info.
	info *driver.RunInfo
	def  definition
	// done lists the downloads that are already layers.
	done []string
	// ownIP is the container's address; the host's when it shares the host's network.
	ownIP      string
	resolvConf string
	// trustedFile says that the operator's trusted certificates are one file, not a directory.
	trustedFile bool
	// kernelLogs says that egress rules can log; nodeAddrs are the node's own addresses, when rules name them.
	kernelLogs bool
	nodeAddrs  []driver.AddrRange
	// project is the task's project id, 0 for none; imageUse is how much of its disk space the image takes.
	project  uint32
	imageUse int64
	// cdi is what devices need of which a vendor's file speaks.
	cdi cdi.Edits
	// cpus is the number of processors of the node.
	cpus int
}

const (
	lifecycleDir  = "/tmp/lifecycle"
	launcherPath  = lifecycleDir + "/launcher"
	sharedAlloc   = "alloc"
	trustedMinLen = len("/x")
	// trustedFileName is what Cloud Foundry calls the first of the files in the directory.
	trustedFileName = "trusted-ca-1.crt"
)

// assemble says what container the facts make.
func assemble(f facts) (driver.Container, error) {
	cgroup, cpuset := cgroupPaths(f.req.Resources.CpusetCgroup, f.req.AllocID, f.req.TaskName)
	c := driver.Container{
		ID:           f.id,
		Hostname:     f.hostname(),
		RootFS:       driver.RootFS{Layers: f.layers, ReadOnly: f.req.Wish.ReadOnlyRootFS},
		IDs:          f.ids,
		Limits:       limits(f.req.Resources, f.pids(), f.req.Wish.CPUHardLimit, f.cpus),
		Cgroup:       cgroup,
		CpusetCgroup: cpuset,
		AllocDir:     f.req.AllocDir,
		NetNS:        f.req.NetNS,
		ResolvConf:   f.resolvConf,
		Stdout:       f.req.Stdout,
		Stderr:       f.req.Stderr,
		Seccomp:      f.node.Seccomp,
	}
	c.Hosts = hostsFile(c.Hostname, f.ownIP)
	c.Mounts = f.mounts()
	var err error
	switch {
	case f.info != nil:
		c.Work = f.diegoWork()
	case f.req.Wish.Droplet != "":
		c.Work, err = f.dropletWork()
	default:
		c.Process, err = f.process()
	}
	errs := []error{err}
	for _, apply := range []func(*driver.Container) error{
		f.applyProcess, f.applySecurity, f.applyStorage, f.applyNetwork, f.applyNames, f.applyDisk, f.applyLimit,
	} {
		errs = append(errs, apply(&c))
	}
	return c, errors.Join(errs...)
}

func (f facts) hostname() string {
	switch {
	case f.req.Wish.Hostname != "":
		return f.req.Wish.Hostname
	case f.info != nil:
		return f.guid
	}
	return clip(f.req.AllocID, 8)
}

// pids is the task's limit of processes: what it asks for, else the node's default, and never more than allowed.
func (f facts) pids() int64 {
	wish := f.req.Wish.PIDsLimit
	if f.info != nil && wish == 0 {
		wish = f.def.maxPIDs
	}
	if wish <= 0 {
		wish = f.node.PIDs
	}
	return min(wish, f.node.MaxPIDs)
}

// mounts lists the bind mounts in the order in which they are made.
func (f facts) mounts() []driver.Mount {
	var list []driver.Mount
	if f.info == nil {
		base := f.req.AllocDir
		task, alloc := filepath.Join(base, f.req.TaskName), filepath.Join(base, sharedAlloc)
		list = append(list,
			driver.Mount{Source: alloc, Base: base, Target: "/alloc", IDMapped: true},
			// What a task prints must not be rewritten by it, nor must it put a link in the log's place.
			driver.Mount{Source: filepath.Join(alloc, "logs"), Base: base, Target: "/alloc/logs", ReadOnly: true, IDMapped: true},
			driver.Mount{Source: filepath.Join(task, "local"), Base: base, Target: "/local", IDMapped: true},
			driver.Mount{Source: filepath.Join(task, "secrets"), Base: base, Target: "/secrets", NoExec: true, IDMapped: true},
		)
	}
	if target := f.trustedCertsAt(); target != "" {
		if f.trustedFile {
			target = path.Join(target, trustedFileName)
		}
		list = append(list, driver.Mount{Source: f.node.TrustedCertificates, Target: target, ReadOnly: true, NoExec: true})
	}
	for _, m := range f.req.Mounts {
		m.Target = path.Join("/", m.Target)
		list = append(list, m)
	}
	return list
}

func (f facts) trustedCertsAt() string {
	switch {
	case f.node.TrustedCertificates == "":
		return ""
	case f.info != nil:
		if target := path.Clean(f.def.trustedCertsTarget); path.IsAbs(target) && len(target) >= trustedMinLen {
			return target
		}
		return ""
	case f.req.Wish.Droplet != "":
		return trustedCertsTarget
	}
	return ""
}

// hostIP is the address by which others reach the task's mapped ports.
func (f facts) hostIP(ports []Port) string {
	if len(ports) > 0 && ports[0].HostIP != "" {
		return ports[0].HostIP
	}
	return f.req.HostIP
}

// diegoWork hands the action tree to the shim.
func (f facts) diegoWork() *driver.Work {
	ports := orderPorts(f.req.Ports, f.def.ports)
	return &driver.Work{
		Info:        *f.info,
		Env:         diegoEnv(f.image.Env, f.def, f.guid, f.req.Env["NOMAD_ALLOC_INDEX"]),
		InstanceEnv: instanceEnv(f.hostIP(ports), f.ownIP, ports),
		Done:        f.done,
		TLS:         f.node.TLS,
	}
}

// dropletWork runs a droplet of a hand-written job as Diego would: by the lifecycle's launcher, or, on nodes without
// one, by a shell in the app's directory.
func (f facts) dropletWork() (*driver.Work, error) {
	wish := f.req.Wish
	run := &models.RunAction{User: orElse(wish.User, userVcap), Dir: wish.WorkDir, LogSource: "APP"}
	if f.node.Lifecycle != "" {
		run.Path, run.Args = launcherPath, []string{"app", wish.Command, ""}
	} else {
		run.Path, run.Args = "/bin/bash", []string{"-c", wish.Command}
		run.Dir = orElse(run.Dir, vcapHome+"/app")
		run.Env = []*models.EnvironmentVariable{{Name: "HOME", Value: vcapHome + "/app"}}
	}
	info, err := launcherInfo(f.req.AllocID, run)
	if err != nil {
		return nil, err
	}
	env := append(append([]string(nil), f.image.Env...), dropletEnv(f.req.Env, f.req.Ports, f.req.Resources.MemoryMB)...)
	return &driver.Work{
		Info: info, Env: env, InstanceEnv: instanceEnv(f.hostIP(f.req.Ports), f.ownIP, f.req.Ports), TLS: f.node.TLS,
	}, nil
}

// process is what runs in a container without an action tree, by Docker's rules: entrypoint and command of the jobspec
// take the place of the image's, and a new entrypoint drops the image's command.
func (f facts) process() (driver.Process, error) {
	wish, image := f.req.Wish, f.image
	entrypoint, command := image.Entrypoint, image.Cmd
	if len(wish.Entrypoint) > 0 {
		entrypoint, command = wish.Entrypoint, nil
	}
	if wish.Command != "" || len(wish.Args) > 0 {
		command = wish.Args
		if wish.Command != "" {
			command = append([]string{wish.Command}, wish.Args...)
		}
	}
	args := append(append([]string(nil), entrypoint...), command...)
	if len(args) == 0 {
		return driver.Process{}, errors.New("command: must be given, because the image has neither entrypoint nor command")
	}
	dir := orElse(wish.WorkDir, image.WorkingDir)
	if dir == "" {
		dir = "/"
	}
	return driver.Process{
		Args: args,
		Env:  append(append([]string(nil), image.Env...), envList(f.req.Env)...),
		Dir:  dir,
		User: f.user(),
	}, nil
}

// user is who runs a container without an action tree.
func (f facts) user() string {
	if f.req.Wish.User != "" {
		return f.req.Wish.User
	}
	return orElse(f.node.DefaultUser, f.image.User)
}
