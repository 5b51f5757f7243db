package plugin

import "drover/driver/task"

// securityNodeOptions: how far tasks may go.
func securityNodeOptions() []Option {
	return []Option{
		{Name: "seccomp", Kind: String, Default: "default", Doc: "`default`, or `off` for hosts whose kernel cannot filter system calls"},
		{Name: "userns", Kind: Block, Doc: "the ids of containers on the host", Options: []Option{
			{Name: "host_base", Kind: Number, Default: "1073741824", Doc: "first id of the pool"},
			{Name: "size", Kind: Number, Default: "65536", Doc: "ids per allocation"},
			{Name: "count", Kind: Number, Default: "8192", Doc: "allocations at the same time"},
		}},
		{Name: "allow_privileged", Kind: Bool, Doc: "jobs may ask for `privileged`, which is root on the host, and for every mode of `allowed_modes`"},
		{
			Name: "allow_caps", Kind: Strings, Default: "Garden's set",
			Doc: "capabilities that tasks may have, and the most that root has without asking; names as in `cap_add`, or `all`; `[]` is none",
		},
		{Name: "allow_new_privileges", Kind: Bool, Doc: "jobs may switch `no_new_privileges` off"},
		{Name: "allowed_modes", Kind: Block, Doc: "what jobs may choose in place of the default", Options: []Option{
			{Name: "userns", Kind: Strings, Default: "none", Doc: "`host`, `identity`"},
			{Name: "pid", Kind: Strings, Default: "none", Doc: "`host`"},
			{Name: "ipc", Kind: Strings, Default: "none", Doc: "`host`"},
			{Name: "uts", Kind: Strings, Default: "none", Doc: "`host`"},
			{Name: "seccomp", Kind: Strings, Default: "none", Doc: "`custom`: a profile of the job's own, which may allow everything; `unconfined`"},
			{Name: "apparmor", Kind: Strings, Default: "none", Doc: "names of profiles that the host has loaded; `unconfined`"},
		}},
		{Name: "seccomp_profiles", Kind: Strings, Default: "none", Doc: "directories of profiles that every job may name in `security_opt`"},
		{
			Name: "apparmor", Kind: String, Default: "default",
			Doc: "profile of tasks on hosts with AppArmor: `default` is the driver's own, which it loads by `apparmor_parser`; a loaded one's name; `off`",
		},
	}
}

type securityNode struct {
	Seccomp            string       `codec:"seccomp"`
	UserNS             userNSConfig `codec:"userns"`
	AllowPrivileged    bool         `codec:"allow_privileged"`
	AllowCaps          []string     `codec:"allow_caps"`
	AllowNewPrivileges bool         `codec:"allow_new_privileges"`
	AllowedModes       modesConfig  `codec:"allowed_modes"`
	SeccompProfiles    []string     `codec:"seccomp_profiles"`
	AppArmor           string       `codec:"apparmor"`
}

type userNSConfig struct {
	HostBase uint32 `codec:"host_base"`
	Size     uint32 `codec:"size"`
	Count    uint32 `codec:"count"`
}

type modesConfig struct {
	UserNS   []string `codec:"userns"`
	PID      []string `codec:"pid"`
	IPC      []string `codec:"ipc"`
	UTS      []string `codec:"uts"`
	Seccomp  []string `codec:"seccomp"`
	AppArmor []string `codec:"apparmor"`
}

func (c securityNode) into(n *task.Config) error {
	n.Seccomp = or(c.Seccomp, "default")
	n.IDs = task.IDs{
		HostBase: or(c.UserNS.HostBase, task.DefaultHostBase), Size: or(c.UserNS.Size, task.DefaultIDSize), Count: or(c.UserNS.Count, task.DefaultIDCount),
	}
	n.Security = task.SecurityConfig{
		AllowPrivileged: c.AllowPrivileged, AllowCaps: c.AllowCaps, AllowNewPrivileges: c.AllowNewPrivileges,
		SeccompProfiles: c.SeccompProfiles, AppArmor: c.AppArmor,
	}
	for option, modes := range map[string][]string{
		"userns": c.AllowedModes.UserNS, "pid": c.AllowedModes.PID, "ipc": c.AllowedModes.IPC, "uts": c.AllowedModes.UTS,
		"seccomp": c.AllowedModes.Seccomp, "apparmor": c.AllowedModes.AppArmor,
	} {
		if len(modes) == 0 {
			continue
		}
		if n.Security.Modes == nil {
			n.Security.Modes = map[string][]string{}
		}
		n.Security.Modes[option] = modes
	}
	return nil
}

// securityOptions: what a task may do.
func securityOptions() []Option {
	return []Option{
		{
			Name: "cap_add", Kind: Strings,
			Doc: "capabilities beside the default, with or without `CAP_`, or `all` that the node allows; a user other than root can use them at once",
		},
		{Name: "cap_drop", Kind: Strings, Doc: "capabilities that root is not to have; `all` leaves those of `cap_add`"},
		{
			Name: "privileged", Kind: Bool,
			Doc: "root on the host: its user namespace and devices, all capabilities, nothing filtered, masked or read-only; needs `allow_privileged`",
		},
		{Name: "no_new_privileges", Kind: Bool, Default: "true, unless privileged", Doc: "set-user-id programs gain nothing; false needs `allow_new_privileges`"},
		{
			Name: "security_opt", Kind: Strings,
			Doc: "as Docker's: `seccomp=` default, unconfined or a profile's file (`local/p.json`); `apparmor=` profile or unconfined; `label=type:…`; `no-new-privileges`",
		},
		{
			Name: "userns", Kind: String, Default: "auto",
			Doc: "`auto`: ids of the allocation's own; `identity`: as in Garden, all but root are the host's; `host`; the latter two need `allowed_modes`",
		},
		{Name: "pid_mode", Kind: String, Default: "private", Doc: "`host` shows the host's processes; needs `allowed_modes`"},
		{Name: "ipc_mode", Kind: String, Default: "private", Doc: "`host` shares the host's `/dev/shm` and message queues; needs `allowed_modes`"},
		{Name: "uts_mode", Kind: String, Default: "private", Doc: "`host` is the host's name; needs `allowed_modes`"},
		{Name: "sysctl", Kind: Pairs, Doc: "values of the task's own namespaces: `net.*`, which the group's tasks share, `fs.mqueue.*`, `kernel.shm*`, `kernel.msg*`, `kernel.sem`"},
		{Name: "group_add", Kind: Strings, Doc: "further groups of all processes, names of the image's `/etc/group` or numbers"},
	}
}

type securityTask struct {
	CapAdd          []string `codec:"cap_add"`
	CapDrop         []string `codec:"cap_drop"`
	Privileged      bool     `codec:"privileged"`
	NoNewPrivileges *bool    `codec:"no_new_privileges"`
	SecurityOpt     []string `codec:"security_opt"`
	UserNSMode      string   `codec:"userns"`
	PIDMode         string   `codec:"pid_mode"`
	IPCMode         string   `codec:"ipc_mode"`
	UTSMode         string   `codec:"uts_mode"`
	Sysctl          pairs    `codec:"sysctl"`
	GroupAdd        []string `codec:"group_add"`
}

func (c securityTask) into(w *task.Wish) error {
	w.Security = task.SecurityWish{
		CapAdd: c.CapAdd, CapDrop: c.CapDrop, Privileged: c.Privileged, NoNewPrivileges: c.NoNewPrivileges, SecurityOpt: c.SecurityOpt,
		UserNS: c.UserNSMode, PIDMode: c.PIDMode, IPCMode: c.IPCMode, UTSMode: c.UTSMode, Sysctl: c.Sysctl.merged(), GroupAdd: c.GroupAdd,
	}
	return nil
}
