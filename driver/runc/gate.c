// The gate is the last program before a container's own: it loads the container's system call filter, which was
// compiled once for this node, and becomes the program. Go copies this section, as it is, into an executable file of
// its own (gate.go), so nothing here may refer to anything outside of it: no library, no constant strings, no tables.
//
// The file cannot be read by the container, which makes the kernel keep every other process of the container away from
// this one (no tracing, no /proc/<pid>/mem) in the moments before the filter holds.

#include "gate.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#pragma GCC optimize("O2", "no-stack-protector", "no-tree-loop-distribute-patterns", "no-jump-tables")

#define GATE __attribute__((section("gate_text"), used, noinline))
#define PART static inline __attribute__((always_inline))

#if defined(__x86_64__)
__asm__(".pushsection gate_text,\"ax\",@progbits\n"
	".globl gate_entry\n.hidden gate_entry\n.type gate_entry,@function\n"
	"gate_entry:\n xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call gate_main\n hlt\n"
	".popsection\n");

PART long call(long n, long a, long b, long c)
{
	long r;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return r;
}
#elif defined(__aarch64__)
__asm__(".pushsection gate_text,\"ax\",@progbits\n.balign 4\n"
	".globl gate_entry\n.hidden gate_entry\n.type gate_entry,%function\n"
	"gate_entry:\n mov x29,#0\n mov x0,sp\n bl gate_main\n brk #1\n"
	".popsection\n");

PART long call(long n, long a, long b, long c)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	return x0;
}
#else
#error "the gate is written for x86_64 and aarch64"
#endif

// become executes a name in a directory, and returns only the error.
PART long become(const char *dir, long length, const char *name, char **argv, char **envp)
{
	char path[4096];
	long n = 0;
	if (length > 0 && dir[0] != '/') // as in Go's exec: the working directory is no place to search
		return -ENOENT;
	for (long i = 0; i < length; i++, n++) {
		if (n > (long)sizeof path - 3)
			return -ENAMETOOLONG;
		path[n] = dir[i];
	}
	if (length > 0)
		path[n++] = '/';
	for (;; name++, n++) {
		if (n > (long)sizeof path - 1)
			return -ENAMETOOLONG;
		path[n] = *name;
		if (*name == 0)
			break;
	}
	return call(SYS_execve, (long)path, (long)argv, (long)envp);
}

PART const char *search_path(char **envp)
{
	for (; *envp; envp++) {
		const char *e = *envp;
		if (e[0] == 'P' && e[1] == 'A' && e[2] == 'T' && e[3] == 'H' && e[4] == '=')
			return e + 5;
	}
	return 0;
}

PART long search(const char *name, char **argv, char **envp)
{
	const char *dir = search_path(envp);
	long error = -ENOENT;
	while (dir) {
		long length = 0;
		while (dir[length] && dir[length] != ':')
			length++;
		if (length > 0) {
			long e = become(dir, length, name, argv, envp);
			if (e == -EACCES)
				error = e;
			else if (e != -ENOENT && e != -ENOTDIR)
				return e;
		}
		dir = dir[length] ? dir + length + 1 : 0;
	}
	return error;
}

// The arguments are: this program, the program to become, its own arguments from the one with number 1 on.
GATE void gate_main(long *stack)
{
	char **argv = (char **)(stack + 2);
	char **envp = (char **)(stack + 1) + stack[0] + 1;
	const struct gate_data *data = (const struct gate_data *)(GATE_ADDRESS + GATE_DATA);
	volatile int report[2]; // a stage and an error; volatile, lest they become a constant in another section
	report[0] = GATE_FILTER;
	call(SYS_fcntl, GATE_FD, F_SETFD, FD_CLOEXEC);
	call(SYS_fcntl, GATE_REPORT_FD, F_SETFD, FD_CLOEXEC);
	long r = call(SYS_seccomp, SECCOMP_SET_MODE_FILTER, (long)data->flags, (long)&data->program);
	if (r == 0) {
		const char *name = argv[0];
		int slash = 0;
		for (const char *p = name; *p; p++)
			slash |= *p == '/';
		report[0] = GATE_PROGRAM;
		r = slash ? become(name, 0, name, argv, envp) : search(name, argv, envp);
	}
	report[1] = (int)-r;
	call(SYS_write, GATE_REPORT_FD, (long)report, sizeof report);
	for (;;)
		call(SYS_exit_group, 127, 0, 0);
}

extern char __start_gate_text[], __stop_gate_text[], gate_entry[];

const void *gate_code(void) { return __start_gate_text; }
unsigned long gate_size(void) { return (unsigned long)(__stop_gate_text - __start_gate_text); }
unsigned long gate_start(void) { return (unsigned long)(gate_entry - __start_gate_text); }
