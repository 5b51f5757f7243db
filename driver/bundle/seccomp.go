package bundle

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"drover/driver"
)

// Errors that denied calls return.
const (
	errnoPerm  = 1  // EPERM
	errnoNoSys = 38 // ENOSYS
)

// newNamespaces are the clone flags that make namespaces, save for CLONE_NEWTIME, which clone does not take.
const newNamespaces = 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000 | 0x00020000

// seccompRule allows the calls that ordinary programs make, and answers EPERM to the rest: those that load code into
// the kernel, mount, trace the kernel, change the clock, use keyrings, or make namespaces. What a capability is for is
// allowed to containers that were given it.
func seccompRule(spec *specs.Spec, c driver.Container, f Facts) error {
	if len(c.Security.Profile) > 0 {
		return profileRule(spec, c, f)
	}
	switch c.Seccomp {
	case "off":
		return nil
	case "", "default":
	default:
		return fmt.Errorf("seccomp %q: want default or off", c.Seccomp)
	}
	arches, extra, err := seccompArch(f.Arch)
	if err != nil {
		return err
	}
	perm, nosys := uint(errnoPerm), uint(errnoNoSys)
	granted := capabilityCalls(rootCapabilities(c.Security, f.Capabilities))
	spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction:   specs.ActErrno,
		DefaultErrnoRet: &perm,
		Architectures:   arches,
		Syscalls: []specs.LinuxSyscall{
			{Names: slices.Concat(strings.Fields(allowedCalls), extra, granted), Action: specs.ActAllow},
			// By this one 32 bit programs could ask for any family of sockets, behind a pointer. It is denied by name,
			// because libseccomp makes it part of what allowing socket allows. Their C libraries may call socket instead.
			{Names: []string{"socketcall"}, Action: specs.ActErrno, ErrnoRet: &nosys},
			// Personalities: Linux, 32 bit, the two UNAME26 forms, and "tell me".
			personality(0x0), personality(0x0008), personality(0x20000), personality(0x20008), personality(0xffffffff),
		},
	}
	if !slices.Contains(granted, "clone") {
		spec.Linux.Seccomp.Syscalls = append(spec.Linux.Seccomp.Syscalls,
			specs.LinuxSyscall{
				Names: []string{"clone"}, Action: specs.ActAllow,
				Args: []specs.LinuxSeccompArg{{Index: 0, Value: newNamespaces, ValueTwo: 0, Op: specs.OpMaskedEqual}},
			},
			// Its flags are behind a pointer, where no filter can look. ENOSYS makes C libraries use clone.
			specs.LinuxSyscall{Names: []string{"clone3"}, Action: specs.ActErrno, ErrnoRet: &nosys})
	}
	spec.Linux.Seccomp.Syscalls = append(spec.Linux.Seccomp.Syscalls, socketRules()...)
	return nil
}

// capabilityCalls are the calls that make sense with a capability only: who was given it may make them.
func capabilityCalls(capabilities []string) []string {
	var calls []string
	for _, of := range []struct{ capability, calls string }{
		{"CAP_SYS_ADMIN", `clone clone3 bpf fanotify_init fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree
			open_tree_attr perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare`},
		{"CAP_BPF", "bpf"},
		{"CAP_DAC_READ_SEARCH", "open_by_handle_at"},
		{"CAP_PERFMON", "perf_event_open"},
		{"CAP_SYSLOG", "syslog"},
		{"CAP_SYS_BOOT", "reboot"},
		{"CAP_SYS_MODULE", "delete_module finit_module init_module"},
		{"CAP_SYS_NICE", "migrate_pages move_pages"},
		{"CAP_SYS_PACCT", "acct"},
		{"CAP_SYS_PTRACE", "kcmp"},
		{"CAP_SYS_RAWIO", "ioperm iopl"},
		{"CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"},
		{"CAP_SYS_TTY_CONFIG", "vhangup"},
	} {
		if !slices.Contains(capabilities, of.capability) {
			continue
		}
		for _, call := range strings.Fields(of.calls) {
			if !slices.Contains(calls, call) {
				calls = append(calls, call)
			}
		}
	}
	return calls
}

// seccompArch returns the ABIs of an architecture that have rules, and calls that only it has. x32 is left out: the kernels
// of distributions no longer run it, and its rules would double the time that it takes to make the filter.
func seccompArch(arch string) ([]specs.Arch, []string, error) {
	switch arch {
	case "amd64":
		return []specs.Arch{specs.ArchX86_64, specs.ArchX86}, []string{"arch_prctl", "modify_ldt"}, nil
	case "arm64":
		return []specs.Arch{specs.ArchAARCH64, specs.ArchARM},
			[]string{"arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls", "sync_file_range2"}, nil
	}
	return nil, nil, fmt.Errorf("no seccomp profile for architecture %s", arch)
}

func personality(value uint64) specs.LinuxSyscall {
	return specs.LinuxSyscall{
		Names: []string{"personality"}, Action: specs.ActAllow,
		Args: []specs.LinuxSeccompArg{{Index: 0, Value: value, Op: specs.OpEqualTo}},
	}
}

// socketRules allow sockets of every family but AF_ALG (38) and AF_VSOCK (40), which reaches the hypervisor past any
// network policy. The kernel reads the lower half of the argument only; rules that compared all of it would let a family
// through with a bit set in the upper half. Families above 47 do not exist.
func socketRules() []specs.LinuxSyscall {
	const all = 0xffffffff
	var rules []specs.LinuxSyscall
	for _, block := range []struct{ first, mask uint64 }{
		{0, all &^ 31}, {32, all &^ 3}, {36, all &^ 1}, {39, all}, {41, all}, {42, all &^ 1}, {44, all &^ 3},
	} {
		rules = append(rules, specs.LinuxSyscall{
			Names: []string{"socket"}, Action: specs.ActAllow,
			Args: []specs.LinuxSeccompArg{{Index: 0, Value: block.mask, ValueTwo: block.first, Op: specs.OpMaskedEqual}},
		})
	}
	return rules
}

// allowedCalls are the calls allowed whatever their arguments. Names that an architecture lacks are skipped there.
const allowedCalls = `
_llseek _newselect accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2
fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait
futex_waitv futex_wake futimesat get_mempolicy get_robust_list get_thread_area getcpu getcwd getdents getdents64
getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp
getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid
getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self
lchown lchown32 lgetxattr link linkat listen listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat
lstat64 madvise map_shadow_stack mbind membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat
mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_getfd pidfd_open pidfd_send_signal pipe pipe2
pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_madvise
process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read
readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr
removexattrat rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending
rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg
sendmsg sendto set_mempolicy set_mempolicy_home_node set_robust_list set_thread_area set_tid_address setfsgid
setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid
setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid
setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn
socketpair splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs sysinfo
tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime
timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill
truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork
vmsplice wait4 waitid waitpid write writev
chroot
`
