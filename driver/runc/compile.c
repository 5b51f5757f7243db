// Catches the system call filter that is about to be loaded, writes it to standard output, and ends the process.

#define _GNU_SOURCE // names of registers
#include "compile.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static void put(const void *what, size_t size)
{
	const char *from = what;
	while (size > 0) {
		ssize_t n = write(1, from, size);
		if (n <= 0)
			_exit(1);
		from += n;
		size -= (size_t)n;
	}
}

// caught runs where seccomp(SECCOMP_SET_MODE_FILTER, flags, program) or prctl(PR_SET_SECCOMP, mode, program) was called.
static void caught(int sig, siginfo_t *info, void *context)
{
	const ucontext_t *at = context;
	(void)sig;
#if defined(__x86_64__)
	unsigned long second = (unsigned long)at->uc_mcontext.gregs[REG_RSI], third = (unsigned long)at->uc_mcontext.gregs[REG_RDX];
#elif defined(__aarch64__)
	unsigned long second = at->uc_mcontext.regs[1], third = at->uc_mcontext.regs[2];
#endif
	const struct sock_fprog *program = (const struct sock_fprog *)third;
	unsigned int flags = info->si_syscall == SYS_seccomp ? (unsigned int)second : 0;
	put(&flags, sizeof flags);
	put(program->filter, program->len * sizeof program->filter[0]);
	_exit(0);
}

int catch_filter(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 6),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SECCOMP_SET_MODE_FILTER, 0, 8), // others ask what the kernel can do
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])), // so does a program at address 0
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 5),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2]) + 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 4, 3),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_SECCOMP, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = sizeof code / sizeof code[0], .filter = code };
	struct sigaction action = { .sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	if (sigaction(SIGSYS, &action, 0) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return errno;
	// On every thread, as it is not known which one will load the filter.
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0)
		return errno;
	return 0;
}
