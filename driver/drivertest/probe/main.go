// Command probe is a static program for root file systems that hold nothing else. Each of its subcommands does one
// thing that a test wants to see a container do:
//
//	echo WORDS…         print the words
//	err WORDS…          print the words to standard error
//	env [NAME]          print the environment, sorted, or one variable
//	exit N              end with status N
//	die SIGNAL          send the signal to itself
//	sleep SECONDS       wait (fractions are allowed); SIGTERM ends it
//	cat FILE…           print files; standard input when there is none
//	write FILE TEXT     write a file
//	append FILE TEXT    append to a file
//	rename OLD NEW      rename a file
//	remove FILE…        delete files
//	mkdir DIR           make a directory
//	link TARGET NAME    make a symbolic link
//	fill FILE MIB       write so many MiB to a file and say so; fails with the kernel's error
//	litter DIR N        make N empty files in a directory, which is made, and say so
//	hidden FILE MIB     write so many MiB to a file that is unlinked at once, print "hidden", wait
//	project FILE ID     make a file part of a project
//	id                  print uid, gid, groups, working directory
//	stat FILE…          print mode, uid, gid and name of each
//	ls DIR              list a directory
//	readlink FILE…      print where links lead
//	status NAME         print one line of /proc/self/status, such as CapEff
//	limit NAME          print one line of /proc/self/limits, such as "Max open files"
//	room DIR            print the size of a file system in bytes
//	mem MIB             allocate and touch memory, then wait
//	fork N              start N children that sleep, report how many started
//	orphan FILE         start a child that outlives the parent and writes the file when it gets SIGTERM
//	listen PORT         serve HTTP: / answers "hello", /env the environment, /exit/N ends with status N
//	get URL             print the body of an HTTP answer; fails when it is not 2xx
//	dial HOST:PORT      fail unless a TCP connection can be made
//	dialmp HOST:PORT    the same with a Multipath TCP connection
//	ask HOST:PORT       send a UDP packet; fail unless an answer comes
//	ping ADDRESS        send an ICMP echo request; fail unless an answer comes
//	trap [SECONDS]      print the name of the first signal, wait the seconds, end with status 0
//	sigignore           ignore every signal that can be ignored, print "ready", wait
//	stty                print columns and rows of the terminal, or "not a tty"
//	chatter N           print N numbered lines to standard output and standard error
//	kill SIGNAL PID     send a signal
//	flood BYTES         print lines of 64 bytes, then "flooded" to standard error
//	stdin               print whether standard input is a terminal, silent or ended
//	snatch              look for programs of other processes, and write to them; print "held" and "wrote" when it can
//	packets             say whether a packet socket can be opened
//	call NUMBER ARGS…   make a system call; print OK, or fail with the kernel's error
//	init                reap children and wait: for use as process 1
//	then -- A… -- B…    run the commands one after the other until one fails
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "probe: no subcommand")
		os.Exit(2)
	}
	commands := table()
	run, ok := commands[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "probe: unknown subcommand %q\n", os.Args[1])
		os.Exit(2)
	}
	if err := run(os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "probe: %v\n", err)
		os.Exit(1)
	}
}

func table() map[string]func([]string) error {
	return map[string]func([]string) error{
		"echo": echo, "err": echoErr, "env": env, "exit": exit, "cat": cat, "write": write, "append": appendTo,
		"rename": rename, "remove": remove, "mkdir": mkdir, "link": link, "readlink": readlink,
		"fill": fill, "litter": litter, "hidden": hidden, "project": project,
		"id": id, "stat": stat, "ls": ls, "status": status, "limit": limit, "stty": stty, "chatter": chatter,
		"die": die, "sleep": sleep, "mem": mem, "fork": fork, "orphan": orphan, "trap": trap, "sigignore": sigignore,
		"room": room, "flood": flood, "kill": kill, "stdin": stdin, "init": reap, "then": then, "listen": listen, "get": get, "dial": dial, "dialmp": dialMultipath, "ask": ask, "ping": ping,
		"call": call, "snatch": snatch, "packets": packets,
	}
}
