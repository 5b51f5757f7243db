package dev

import (
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestChooseSubnet(t *testing.T) {
	taken := []netip.Prefix{netip.MustParsePrefix("172.30.0.5/24"), netip.MustParsePrefix("10.0.0.1/8")}
	subnet, gateway, err := chooseSubnet(taken)
	if err != nil || subnet.String() != "172.30.1.0/24" || gateway.String() != "172.30.1.1" {
		t.Errorf("got %s with gateway %s, %v", subnet, gateway, err)
	}
	if _, _, err := chooseSubnet([]netip.Prefix{netip.MustParsePrefix("172.16.0.0/12")}); err == nil {
		t.Error("a subnet was found where all are taken")
	}
}

func TestFreeDevice(t *testing.T) {
	if got := freeDevice([]net.Interface{{Name: "lo"}, {Name: "drover0"}}); got != "drover1" {
		t.Errorf("got %s", got)
	}
}

func TestWriteCNI(t *testing.T) {
	dir := t.TempDir()
	if err := writeCNI(dir, "/state", "drover0", netip.MustParsePrefix("172.30.0.0/24")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "drover.conflist"))
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Name    string
		Plugins []struct{ Type, Bridge string }
	}
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	if config.Name != "drover" || len(config.Plugins) != 3 || config.Plugins[1].Bridge != "drover0" {
		t.Errorf("got %+v", config)
	}
}

const savedNAT = `*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-OLD - [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m comment --comment "CNI portfwd" -j CNI-HOSTPORT-DNAT
-A OUTPUT -j CNI-OLD
-A CNI-HOSTPORT-DNAT -p tcp -j RETURN
COMMIT`

func TestUndo_takesOutOnlyWhatIsOurs(t *testing.T) {
	got := undo("nat", strings.Split(savedNAT, "\n"), []string{"PREROUTING", "OUTPUT", "CNI-OLD"})
	want := `*nat
-D PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-D OUTPUT -m comment --comment "CNI portfwd" -j CNI-HOSTPORT-DNAT
-F CNI-HOSTPORT-DNAT
-X CNI-HOSTPORT-DNAT
COMMIT
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := undo("nat", strings.Split(savedNAT, "\n"), []string{"CNI-HOSTPORT-DNAT", "CNI-OLD"}); got != "" {
		t.Errorf("with nothing of ours: %s", got)
	}
}

func TestHasRules(t *testing.T) {
	empty := "table ip nat {\n\tchain POSTROUTING {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t}\n}\n"
	if hasRules([]byte(empty)) {
		t.Error("empty base chains count as rules")
	}
	if !hasRules([]byte(strings.Replace(empty, "accept;\n", "accept;\n\t\tcounter packets 0\n", 1))) {
		t.Error("a rule was not seen")
	}
	if !hasRules([]byte(strings.Replace(empty, "accept", "drop", 1))) {
		t.Error("a policy that drops was not seen")
	}
}
