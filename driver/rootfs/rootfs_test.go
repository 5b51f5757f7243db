package rootfs

import (
	"fmt"
	"strings"
	"testing"

	"drover/driver"
)

func TestMapping(t *testing.T) {
	t.Parallel()
	none := driver.IDRange{}
	store := driver.IDRange{Host: 1e9, Size: 65536}
	mine := driver.IDRange{Host: 2e9, Size: 65536}
	small := driver.IDRange{Host: 3e9, Size: 1000}
	rows := []struct {
		name        string
		stored, ids driver.IDRange
		from, to    uint32
		size        uint32
		needed      bool
	}{
		{"shifts the store's range to the container's", store, mine, 1e9, 2e9, 65536, true},
		{"shifts the store's range to the host's ids without a user namespace", store, none, 1e9, 0, 65536, true},
		{"shifts a plain directory to the container's range", none, mine, 0, 2e9, 65536, true},
		{"maps nothing when ranges are equal", mine, mine, 2e9, 2e9, 65536, false},
		{"maps nothing when there are no ranges", none, none, 0, 0, 65536, false},
		{"maps no more than the smaller range", store, small, 1e9, 3e9, 1000, true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			m := mapping(row.stored, row.ids)
			if m.from.Host != row.from || m.to.Host != row.to || m.from.Size != row.size || m.to.Size != row.size || m.needed() != row.needed {
				t.Errorf("got %+v, %v", m, m.needed())
			}
		})
	}
}

func TestIDMap_host(t *testing.T) {
	t.Parallel()
	store, mine := driver.IDRange{Host: 1e9, Size: 65536}, driver.IDRange{Host: 2e9, Size: 65536}
	for _, row := range []struct {
		name        string
		id          uint32
		stored, ids driver.IDRange
		want        uint32
	}{
		{"keeps the owner", 1e9 + 2000, store, mine, 2e9 + 2000},
		{"gives strangers' directories to root", 5, store, mine, 2e9},
		{"shifts host ids", 2000, driver.IDRange{}, mine, 2e9 + 2000},
		{"gives ids without a place to root", 100_000, driver.IDRange{}, mine, 2e9},
		{"shifts back to host ids", 1e9 + 7, store, driver.IDRange{}, 7},
	} {
		if got := mapping(row.stored, row.ids).host(row.id, 0); got != row.want {
			t.Errorf("%s: got %d, want %d", row.name, got, row.want)
		}
	}
}

func TestIDMap_ofAnOwner(t *testing.T) {
	t.Parallel()
	m := mapping(driver.IDRange{Host: 1e9, Size: 65536}, driver.IDRange{Host: 2e9, Size: 65536})
	for owner, want := range map[uint32]string{
		0:     "[{1000000000 2000000000 65536}]",
		1:     "[{1000000000 2000000001 1} {1000000001 2000000000 1} {1000000002 2000000002 65534}]",
		2000:  "[{1000000000 2000002000 1} {1000000001 2000000001 1999} {1000002000 2000000000 1} {1000002001 2000002001 63535}]",
		65535: "[{1000000000 2000065535 1} {1000000001 2000000001 65534} {1000065535 2000000000 1}]",
	} {
		var words []string
		for _, line := range m.lines(owner) {
			words = append(words, fmt.Sprint(line.ContainerID, " ", line.HostID, " ", line.Size))
		}
		if got := "[{" + strings.Join(words, "} {") + "}]"; got != want {
			t.Errorf("owner %d: got %s, want %s", owner, got, want)
		}
		for id, want := range map[uint32]uint32{0: owner, owner: 0, 7: 7} {
			if got := m.host(1e9+id, owner); got != 2e9+want {
				t.Errorf("owner %d: %d on disk is %d", owner, id, got)
			}
		}
	}
	_, err := layerMaps(driver.RootFS{Layers: []driver.Layer{{Dir: "/a"}}, Owner: &driver.Owner{UID: 70000, Layers: 1}}, driver.IDRange{Host: 2e9, Size: 65536})
	if err == nil || !strings.Contains(err.Error(), "70000") {
		t.Errorf("a user without a place: %v", err)
	}
}

func TestMount_refuses(t *testing.T) {
	t.Parallel()
	for name, layers := range map[string][]driver.Layer{
		"no layers": nil, "relative layers": {{Dir: "a"}}, "more layers than the kernel takes": make([]driver.Layer, 501),
	} {
		if _, err := Mount(driver.RootFS{Layers: layers}, driver.IDRange{}, t.TempDir()); err == nil {
			t.Errorf("took %s", name)
		}
	}
}
