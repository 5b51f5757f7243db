#include <linux/filter.h>

// catch_filter makes the next attempt of this process to load a filter write it to standard output. It returns an errno.
int catch_filter(void);
