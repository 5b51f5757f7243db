package task

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// parseBytes reads a size as Docker does: bytes, or a number with b, k, m, g or t, each also as kb or kib, and in any case;
// all count in powers of 1024.
func parseBytes(text string) (int64, error) {
	digits := strings.TrimRight(strings.ToLower(strings.TrimSpace(text)), "abcdefghijklmnopqrstuvwxyz ")
	unit := strings.TrimSpace(strings.ToLower(strings.TrimSpace(text))[len(digits):])
	shift, known := map[string]uint{
		"": 0, "b": 0, "k": 10, "kb": 10, "kib": 10, "m": 20, "mb": 20, "mib": 20, "g": 30, "gb": 30, "gib": 30, "t": 40, "tb": 40, "tib": 40,
	}[unit]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !known || n < 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is not a size such as \"64m\", \"1GiB\" or a number of bytes", text)
	}
	return n << shift, nil
}
