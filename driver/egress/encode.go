package egress

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// encoder collects the expressions of one rule. Everything is compared in register 1.
type encoder struct {
	conn  *nftables.Conn
	table *nftables.Table
	sets  int
	exprs []expr.Any
	err   error
}

func (e *encoder) add(list ...expr.Any) { e.exprs = append(e.exprs, list...) }

func (e *encoder) equal(value ...byte) {
	e.add(&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value})
}

func (e *encoder) meta(key expr.MetaKey) { e.add(&expr.Meta{Key: key, Register: 1}) }

func (m others) encode(e *encoder) {
	e.meta(expr.MetaKeySKUID)
	// The kernel compares ranges byte by byte.
	e.add(
		&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Range{Op: expr.CmpOpNeq, Register: 1, FromData: big32(m.Host), ToData: big32(m.Host + m.Size - 1)},
	)
}

func state(e *encoder, bits uint32) {
	e.add(
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	)
}

func (established) encode(e *encoder) { state(e, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED) }

func (neighbours) encode(e *encoder) {
	e.meta(expr.MetaKeyL4PROTO)
	e.equal(unix.IPPROTO_ICMPV6)
	state(e, expr.CtStateBitUNTRACKED)
}

// loopbackIndex is the number of every network namespace's loopback device.
const loopbackIndex = 1

func (loopback) encode(e *encoder) {
	e.meta(expr.MetaKeyOIF)
	e.equal(binaryutil.NativeEndian.PutUint32(loopbackIndex)...)
}

func (m protocol) encode(e *encoder) {
	e.meta(expr.MetaKeyL4PROTO)
	e.equal(protocolNumbers[m.name])
}

// Where the destination stands in the headers of IP.
const (
	destination4 = 16
	destination6 = 24
)

func (m addresses) encode(e *encoder) {
	family, offset, size, keys := byte(unix.NFPROTO_IPV4), uint32(destination4), uint32(4), nftables.TypeIPAddr
	if m.v6 {
		family, offset, size, keys = unix.NFPROTO_IPV6, destination6, 16, nftables.TypeIP6Addr
	}
	e.meta(expr.MetaKeyNFPROTO)
	e.equal(family)
	if m.everywhere() {
		return
	}
	e.add(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size})
	spans := make([]span, len(m.ranges))
	for i, r := range m.ranges {
		spans[i] = span{first: r.First.AsSlice(), last: r.Last.AsSlice(), next: nextAddr(r.Last)}
	}
	e.oneOf(keys, spans)
}

func nextAddr(a netip.Addr) []byte {
	if next := a.Next(); next.IsValid() {
		return next.AsSlice()
	}
	return nil
}

// destinationPort is where the destination's port stands in the headers of TCP and UDP.
const destinationPort = 2

func (m ports) encode(e *encoder) {
	e.add(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: destinationPort, Len: 2})
	spans := make([]span, len(m.ranges))
	for i, r := range m.ranges {
		spans[i] = span{first: big16(r.First), last: big16(r.Last)}
		if r.Last < 1<<16-1 {
			spans[i].next = big16(r.Last + 1)
		}
	}
	e.oneOf(nftables.TypeInetService, spans)
}

func (m icmp) encode(e *encoder) {
	for offset, value := range []int{m.message.Type, m.message.Code} {
		if value < 0 {
			continue
		}
		e.add(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: uint32(offset), Len: 1}) //nolint:gosec // 0 or 1
		e.equal(byte(value))                                                                                         //nolint:gosec // checked when it was read
	}
}

// span are the values from first to last; next is the one behind, nil when there is none.
type span struct{ first, last, next []byte }

// setPart is how many spans go into one message: an attribute of netlink holds 64 KiB.
const setPart = 500

// oneOf compares the register with one span, or with a set of them.
func (e *encoder) oneOf(keys nftables.SetDatatype, spans []span) {
	if len(spans) == 1 {
		e.single(spans[0])
		return
	}
	e.sets++
	set := &nftables.Set{Table: e.table, Name: numbered("set", e.sets), KeyType: keys, Interval: true}
	if e.err = e.conn.AddSet(set, nil); e.err != nil {
		return
	}
	for len(spans) > 0 {
		part := spans[:min(setPart, len(spans))]
		spans = spans[len(part):]
		var elements []nftables.SetElement
		for _, s := range part {
			elements = append(elements, nftables.SetElement{Key: s.first})
			if s.next != nil {
				elements = append(elements, nftables.SetElement{Key: s.next, IntervalEnd: true})
			}
		}
		if e.err = e.conn.SetAddElements(set, elements); e.err != nil {
			return
		}
	}
	e.add(&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID})
}

func (e *encoder) single(s span) {
	if string(s.first) == string(s.last) {
		e.equal(s.first...)
		return
	}
	e.add(&expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: s.first, ToData: s.last})
}

func (verdict) encode(e *encoder) { e.add(&expr.Verdict{Kind: expr.VerdictAccept}) }

func (a jump) encode(e *encoder) {
	kind := expr.VerdictJump
	if a.forGood {
		kind = expr.VerdictGoto
	}
	e.add(&expr.Verdict{Kind: kind, Chain: a.to})
}

func (count) encode(e *encoder) { e.add(&expr.Counter{}) }

func (reset) encode(e *encoder) { e.add(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}) }

func (prohibit) encode(e *encoder) {
	e.add(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})
}

func (a writeLog) encode(e *encoder) {
	e.add(
		&expr.Limit{Type: expr.LimitTypePkts, Rate: logsPerSecond, Unit: expr.LimitTimeSecond, Burst: logBurst},
		&expr.Counter{},
		&expr.Log{Key: 1<<unix.NFTA_LOG_PREFIX | 1<<unix.NFTA_LOG_LEVEL, Data: []byte(a.prefix), Level: expr.LogLevelInfo},
	)
}

func big16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

func big32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
