package agent

import (
	"strings"
	"testing"
)

func TestNomadConfig_holdsWhatWasAskedFor(t *testing.T) {
	got := nomadConfig(Config{
		Dir: "/d", PluginDir: "/p", NetworkInterface: "lo", LogLevel: "DEBUG", CNIPath: "/c", CNIConfigDir: "/cc",
		Plugins: map[string]string{"nomad-driver-drover": `state_dir = "/s"`}, Extra: "# extra\n",
	}, "http://127.0.0.1:1", []int{11, 12, 13})
	for _, want := range []string{
		`data_dir = "/d/nomad"`, `plugin_dir = "/p"`, `plugin "nomad-driver-drover"`, `state_dir = "/s"`, `log_level = "DEBUG"`,
		`address = "127.0.0.1:1"`, `http = 11`, `rpc  = 12`, `serf = 13`, "# extra\n", "env_aws",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the configuration lacks %q:\n%s", want, got)
		}
	}
}

func TestFind_saysHowToGetAnAgent(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("PATH", t.TempDir())
	if _, err := Find("nomad"); err == nil || !strings.Contains(err.Error(), "make agents") {
		t.Errorf("error = %v, want one that names make agents", err)
	}
	if _, err := Find("mesos"); err == nil {
		t.Error("an unknown program was found")
	}
}

func TestFreePorts_areDistinct(t *testing.T) {
	ports, err := freePorts(8)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, port := range ports {
		if seen[port] {
			t.Errorf("port %d was given twice", port)
		}
		seen[port] = true
	}
}
