package task

import "testing"

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "67108864": 64 << 20, "64m": 64 << 20, "64M": 64 << 20, "1MiB": 1 << 20, " 2 gb ": 2 << 30, "7b": 7, "3kb": 3 << 10, "1t": 1 << 40,
	} {
		if got, err := parseBytes(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "m", "-1", "1.5g", "64x", "9223372036854775807k", "1 2"} {
		if got, err := parseBytes(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}
