package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func listen(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello\n") })
	mux.HandleFunc("GET /env", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Join(os.Environ(), "\n")+"\n")
	})
	mux.HandleFunc("GET /exit/{code}", func(_ http.ResponseWriter, r *http.Request) {
		if code, err := strconv.Atoi(r.PathValue("code")); err == nil {
			os.Exit(code)
		}
	})
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp", ":"+args[0])
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(os.Stdout, "listening on %v\n", listener.Addr()); err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	return server.Serve(listener)
}

func get(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: 10 * time.Second}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("answer %s", answer.Status)
	}
	return nil
}

func dial(args []string) error { return dialWith(&net.Dialer{}, args) }

func dialMultipath(args []string) error {
	var dialer net.Dialer
	dialer.SetMultipathTCP(true)
	return dialWith(&dialer, args)
}

func dialWith(dialer *net.Dialer, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	connection, err := dialer.DialContext(ctx, "tcp", args[0])
	if err != nil {
		return err
	}
	return connection.Close()
}

func ask(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	var dialer net.Dialer
	connection, err := dialer.DialContext(context.Background(), "udp", args[0])
	if err != nil {
		return err
	}
	return exchange(connection, []byte("hello"))
}

// ping uses the kernel's own ICMP sockets, which need no capability.
func ping(args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	address, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	family, protocol, request := unix.AF_INET, unix.IPPROTO_ICMP, byte(8)
	var to unix.Sockaddr = &unix.SockaddrInet6{Addr: address.As16()}
	if address.Is4() {
		to = &unix.SockaddrInet4{Addr: address.As4()}
	} else {
		family, protocol, request = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, to); err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), "ping")
	defer func() { _ = file.Close() }()
	connection, err := net.FileConn(file)
	if err != nil {
		return err
	}
	return exchange(connection, []byte{request, 0, 0, 0, 0, 0, 0, 1})
}

// exchange sends a packet and waits for an answer.
func exchange(connection net.Conn, packet []byte) error {
	defer func() { _ = connection.Close() }()
	if err := connection.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return err
	}
	if _, err := connection.Write(packet); err != nil {
		return err
	}
	_, err := connection.Read(make([]byte, 1500))
	return err
}
