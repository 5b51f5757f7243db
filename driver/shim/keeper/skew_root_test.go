//go:build root

package keeper_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"drover/driver"
	"drover/driver/shim"
)

// speakStrangely puts a socket of an unknown protocol in the place of a running shim's own.
func (b *box) speakStrangely() {
	b.t.Helper()
	if err := os.Remove(filepath.Join(b.dir, "shim.sock")); err != nil {
		b.t.Fatal(err)
	}
	listener, err := shim.Listen(shim.Dir(b.dir))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			greet(conn)
		}
	}()
}

func greet(conn net.Conn) {
	body := []byte(`{"protocol":99,"oldest":99,"version":"from the future"}`)
	frame := binary.BigEndian.AppendUint32([]byte{'J'}, uint32(len(body)))
	_, _ = conn.Write(append(frame, body...))
	_ = conn.Close()
}

// TestSkew wants a task whose shim speaks another protocol to be as good as one whose shim was killed, and better: its
// end is known.
func TestSkew(t *testing.T) {
	t.Run("it is executed in, and stopped", func(t *testing.T) {
		b := newBox(t, "trap", "0").start()
		b.sees(b.out, "ready")
		b.speakStrangely()
		if got := b.exec("echo", "through", "a", "helper"); got != "through a helper\n" {
			t.Errorf("exec says %q", got)
		}
		if err := b.client.Stop(t.Context(), "SIGHUP", 10*time.Second); err != nil {
			t.Fatal(err)
		}
		b.sees(b.out, "SIGHUP")
		if exit := b.wait(); exit.Code != 0 || exit.Signal != 0 {
			t.Errorf("exit %+v", exit)
		}
	})
	t.Run("its exit is the true one, also to a plugin that came later", func(t *testing.T) {
		b := newBox(t, "then", "--", "sleep", "1", "--", "exit", "9").start()
		b.speakStrangely()
		late, err := shim.Connect(b.dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = late.Close() }()
		exit, err := late.Wait(t.Context())
		if err != nil || exit.Code != 9 {
			t.Errorf("exit %+v, error %v", exit, err)
		}
		var out bytes.Buffer
		if _, err := late.Exec(t.Context(), shim.ExecRequest{Process: driver.Process{Args: []string{"/bin/probe", "id"}}, Stdout: &out}); err == nil {
			t.Error("a command ran in a container that has ended")
		}
	})
}
