package stack

import (
	"bytes"
	"strings"
	"time"
)

// tellPause is the least time between two lines that a person is shown.
const tellPause = 5 * time.Second

// teller shows now and then what a program that talks a lot is doing.
type teller struct {
	what string
	tell func(message string)
	now  func() time.Time
	last time.Time
	rest []byte
}

// Write takes the program's output; it never fails.
func (t *teller) Write(text []byte) (int, error) {
	t.rest = append(t.rest, text...)
	for {
		line, rest, whole := bytes.Cut(t.rest, []byte("\n"))
		if !whole {
			return len(text), nil
		}
		t.rest = rest
		if doing, ok := strings.CutPrefix(string(line), "I: "); ok && t.now().Sub(t.last) >= tellPause {
			t.last = t.now()
			t.tell(t.what + ": " + strings.TrimSuffix(strings.ToLower(doing[:1])+doing[1:], "..."))
		}
	}
}
