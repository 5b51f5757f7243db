package plugin

import "testing"

// An empty list of capabilities is none, and no list is the default set.
func TestConfig_noCapabilities(t *testing.T) {
	for body, want := range map[string]bool{"allow_caps = []": false, "": true} {
		var c config
		parse(t, configSpec(), body, &c)
		if got := c.AllowCaps == nil; got != want {
			t.Errorf("%q: the default set: %v", body, got)
		}
	}
}

func TestTaskConfig_noNewPrivileges(t *testing.T) {
	for body, want := range map[string]string{"": "unsaid", "no_new_privileges = true": "true", "no_new_privileges = false": "false"} {
		var c taskConfig
		parse(t, taskConfigSpec(), body, &c)
		got := "unsaid"
		if c.NoNewPrivileges != nil {
			got = map[bool]string{true: "true", false: "false"}[*c.NoNewPrivileges]
		}
		if got != want {
			t.Errorf("%q: %s", body, got)
		}
	}
}
