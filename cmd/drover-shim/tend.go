package main

/*
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

// The tender is process 1 of containers whose task asks for one (option init): it runs the task's program as a child,
// reaps whatever is left to it, passes on every signal, and ends with its child. It never reaches Go.
//
// What became of the child it tells on descriptor 5 (or 3, when it came through no gate: driver/runc), in words that driver/shim/keeper/tend.go reads: its own exit cannot
// say that a child was killed, because a process 1 cannot be killed from inside.
enum { BEGUN = 1, FAILED = 2, ENDED = 3 };

static int out;

static void tell(int32_t kind, int32_t value)
{
	int32_t word[2] = { kind, value };
	while (write(out, word, sizeof word) < 0 && errno == EINTR) { }
}

static void begin(char **argv, const sigset_t *mask, int report)
{
	// A group of its own, in the foreground of the terminal if there is one: ^C is for the program and not for us.
	setpgid(0, 0);
	if (isatty(0))
		tcsetpgrp(0, getpgrp()); // SIGTTOU is blocked
	sigprocmask(SIG_SETMASK, mask, 0);
	execvp(argv[0], argv);
	int32_t why = errno;
	while (write(report, &why, sizeof why) < 0 && errno == EINTR) { }
	_exit(why == ENOENT ? 127 : 126);
}

static int code(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

// reapAll waits for all that has ended, and does not return when the program is among it.
static void reapAll(pid_t program)
{
	int status;
	pid_t gone;
	while ((gone = waitpid(-1, &status, WNOHANG)) > 0 || (gone < 0 && errno == EINTR)) {
		if (gone == program) {
			tell(ENDED, status);
			_exit(code(status));
		}
	}
}

static void tend(char **argv)
{
	sigset_t all, mask;
	int report[2];
	sigfillset(&all);
	// What is a fault of our own must end us.
	int faults[] = { SIGFPE, SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGTRAP, SIGSYS };
	for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++)
		sigdelset(&all, faults[i]);
	sigprocmask(SIG_SETMASK, &all, &mask);
	out = fcntl(5, F_GETFD) >= 0 ? 5 : 3;
	fcntl(out, F_SETFD, FD_CLOEXEC);
	if (pipe2(report, O_CLOEXEC) < 0) {
		tell(FAILED, errno);
		_exit(126);
	}
	pid_t program = fork();
	if (program == 0)
		begin(argv, &mask, report[1]);
	int32_t why = errno;
	close(report[1]);
	if (program < 0) {
		tell(FAILED, why);
		_exit(126);
	}
	ssize_t n;
	while ((n = read(report[0], &why, sizeof why)) < 0 && errno == EINTR) { }
	close(report[0]);
	if (n == sizeof why)
		tell(FAILED, why);
	else
		tell(BEGUN, 0);
	for (;;) {
		reapAll(program);
		int sig = sigwaitinfo(&all, 0);
		if (sig > 0 && sig != SIGCHLD)
			kill(program, sig);
	}
}

__attribute__((constructor)) static void tender(int argc, char **argv)
{
	if (argc > 2 && strcmp(argv[1], "tend") == 0)
		tend(argv + 2);
}
*/
import "C"
