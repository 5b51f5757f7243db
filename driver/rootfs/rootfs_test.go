package rootfs

import (
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
			from, to, needed := mapping(row.stored, row.ids)
			if from.Host != row.from || to.Host != row.to || from.Size != row.size || to.Size != row.size || needed != row.needed {
				t.Errorf("got %v, %v, %v", from, to, needed)
			}
		})
	}
}

func TestShifted(t *testing.T) {
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
		if got := shifted(row.id, row.stored, row.ids); got != row.want {
			t.Errorf("%s: got %d, want %d", row.name, got, row.want)
		}
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
