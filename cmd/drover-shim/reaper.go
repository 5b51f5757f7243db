package main

/*
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static void finish(int sig) { (void)sig; _exit(0); }

// The reaper is process 1 of containers that run an action tree. It never reaches Go, so that it costs the container
// next to no memory: it lives here, before main.
//
// Children are reaped by the kernel (SA_NOCLDWAIT). Standard input is a pipe that the shim holds open. When the shim
// was killed nobody is left who would end this container with its last process, so the reaper watches for that.
//
// Where the kernel gives huge pages to everybody, the few bytes that this file changes of itself would take two megabytes.
// That is switched off for a process by itself, and counts from its next program on: so it becomes itself once more.
static void reap(char **argv)
{
	if (prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 0 && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0)
		execv(argv[0], argv); // and if not, it is only larger
	struct sigaction ends = { .sa_handler = finish };
	struct sigaction ignore = { .sa_handler = SIG_IGN, .sa_flags = SA_NOCLDWAIT };
	sigaction(SIGTERM, &ends, 0);
	sigaction(SIGINT, &ends, 0);
	sigaction(SIGCHLD, &ignore, 0);
	struct pollfd shim = { .fd = 0, .events = 0 };
	while (poll(&shim, 1, -1) != 1) { }
	struct timespec second = { .tv_sec = 1 };
	while (kill(-1, 0) == 0 || errno != ESRCH)
		nanosleep(&second, 0);
	_exit(0);
}

__attribute__((constructor)) static void reaper(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "reaper") == 0)
		reap(argv);
}
*/
import "C"
