#ifndef DROVER_GATE_H
#define DROVER_GATE_H

#include <linux/filter.h>

#define GATE_ADDRESS 0x20000000UL // where the gate's file is mapped
#define GATE_CODE    0x100UL      // where its code is in the file
#define GATE_DATA    0x1000UL     // where its data is in the file

#define GATE_FD        3 // the gate's file
#define GATE_REPORT_FD 4 // a pipe: closed by the program's start, or a stage and an error

#define GATE_FILTER  1
#define GATE_PROGRAM 2

struct gate_data {
	unsigned long flags;
	struct sock_fprog program;
};

const void *gate_code(void);
unsigned long gate_size(void);
unsigned long gate_start(void);

#endif
