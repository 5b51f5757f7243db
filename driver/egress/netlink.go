package egress

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"drover/driver"
)

// Apply makes a container's table in the network namespace of the calling thread, in one transaction.
func Apply(containerID string, ids driver.IDRange, e driver.Egress) error {
	if err := Plan(containerID, ids, e).apply(); err != nil {
		return fmt.Errorf("egress rules (nftables table %s): %w; the kernel needs nf_tables with inet, reject and log "+
			"(a node without them can only have plugin option egress { block_metadata = false })", TableName(containerID), err)
	}
	return nil
}

func (t Table) apply() error {
	conn, err := nftables.New(nftables.WithSockOptions(t.buffers))
	if err != nil {
		return err
	}
	table := conn.CreateTable(&nftables.Table{Name: t.Name, Family: nftables.TableFamilyINet})
	chains := make([]*nftables.Chain, len(t.chains))
	for i, c := range t.chains {
		chains[i] = &nftables.Chain{Table: table, Name: c.name}
		if c.name == chainOutput {
			policy := nftables.ChainPolicyAccept
			chains[i].Type, chains[i].Hooknum, chains[i].Policy = nftables.ChainTypeFilter, nftables.ChainHookOutput, &policy
			chains[i].Priority = nftables.ChainPriorityMangle // behind the tracking of connections, before their translation
		}
		conn.AddChain(chains[i])
	}
	e := encoder{conn: conn, table: table}
	for i, c := range t.chains {
		for _, r := range c.rules {
			e.exprs = nil
			for _, m := range r.matches {
				m.encode(&e)
			}
			r.do.encode(&e)
			if e.err != nil {
				return e.err
			}
			conn.AddRule(&nftables.Rule{Table: table, Chain: chains[i], Exprs: e.exprs})
		}
	}
	return conn.Flush()
}

// What a rule takes in a message to the kernel, and in the answers to it, at most, and what sockets have anyway.
const (
	bytesPerRule  = 2 << 10
	bytesPerRange = 128
	usualBuffer   = 128 << 10
)

// buffers makes a socket's buffers large enough for many rules: a transaction is one message.
func (t Table) buffers(conn *netlink.Conn) error {
	size := 0
	for _, c := range t.chains {
		size += bytesPerRule
		for _, r := range c.rules {
			size += bytesPerRule
			for _, m := range r.matches {
				switch m := m.(type) {
				case addresses:
					size += bytesPerRange * len(m.ranges)
				case ports:
					size += bytesPerRange * len(m.ranges)
				}
			}
		}
	}
	if size < usualBuffer {
		return nil
	}
	return errors.Join(conn.SetWriteBuffer(size), conn.SetReadBuffer(size))
}

// Remove takes a container's table out of a network namespace. A table or a namespace that is not there is no error.
func Remove(netNS, containerID string) error {
	ns, err := os.Open(netNS)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer func() { _ = ns.Close() }()
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(ns.Fd()), &stat); err != nil {
		return fmt.Errorf("look at network namespace: %w", err)
	}
	if stat.Type != unix.NSFS_MAGIC {
		return nil // the namespace is gone, its file is not yet
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and no unlock: Go ends the thread with the goroutine
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		result <- remove(TableName(containerID))
	}()
	return <-result
}

// remove looks first: for a transaction that fails the kernel takes as long as for one that does not.
func remove(name string) error {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return fmt.Errorf("remove nftables table %s: %w", name, err)
	}
	// The kernel makes whoever closes the socket wait until all is cleared away, some ten milliseconds. Nobody needs to.
	defer func() { go func() { _ = conn.CloseLasting() }() }()
	table, err := conn.ListTableOfFamily(name, nftables.TableFamilyINet)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil {
		conn.DelTable(table)
		err = conn.Flush()
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove nftables table %s: %w", name, err)
	}
	return nil
}
