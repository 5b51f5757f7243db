package login

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// helper puts a credential helper on the PATH: a shell script.
func helper(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func config(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFor(t *testing.T) {
	auth := base64.StdEncoding.EncodeToString([]byte("u:p:w"))
	helper(t, "echo", `read at; printf '{"ServerURL":"%s","Username":"of %s","Secret":"s"}' "$at" "$at"`)
	helper(t, "token", `echo '{"Username":"<token>","Secret":"t"}'`)
	helper(t, "none", `echo "credentials not found in native keychain"; exit 1`)
	for _, row := range []struct{ name, file, helper, registry, want string }{
		{"a host", `{"auths":{"r.example.com":{"auth":"` + auth + `"}}}`, "", "r.example.com", "u p:w"},
		{"a URL", `{"auths":{"https://r.example.com/v2/":{"username":"u","password":"p"}}}`, "", "r.example.com", "u p"},
		{"docker hub", `{"auths":{"https://index.docker.io/v1/":{"auth":"` + auth + `"}}}`, "", "index.docker.io", "u p:w"},
		{"a token", `{"auths":{"r.example.com":{"identitytoken":"t"}}}`, "", "r.example.com", "<t>"},
		{"another host", `{"auths":{"r.example.com":{"auth":"` + auth + `"}}}`, "", "example.com", "nobody"},
		{"another port", `{"auths":{"r.example.com":{"auth":"` + auth + `"}}}`, "", "r.example.com:5000", "nobody"},
		{"a team before the host", `{"auths":{"h":{"username":"all","password":"p"},"h/team":{"username":"team","password":"p"},"h/tea":{"username":"x","password":"p"}}}`, "", "h", "team p"},
		{"a helper before auths", `{"auths":{"h":{"auth":"` + auth + `"}},"credHelpers":{"h":"echo"}}`, "", "h", "of h s"},
		{"a helper for another host", `{"auths":{"h":{"auth":"` + auth + `"}},"credHelpers":{"i":"echo"}}`, "", "h", "u p:w"},
		{"a store", `{"credsStore":"token"}`, "", "h", "<t>"},
		{"a store that knows nobody, and auths", `{"auths":{"h":{"auth":"` + auth + `"}},"credsStore":"none"}`, "", "h", "u p:w"},
		{"the operator's helper last", `{"auths":{}}`, "echo", "h", "of h s"},
		{"the file before the operator's helper", `{"auths":{"h":{"auth":"` + auth + `"}}}`, "echo", "h", "u p:w"},
		{"the name of docker hub", ``, "echo", "index.docker.io", "of https://index.docker.io/v1/ s"},
		{"nobody at all", ``, "none", "h", "nobody"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := Sources{Helper: row.helper}
			if row.file != "" {
				s.File = config(t, row.file)
			}
			user, err := s.For(t.Context(), row.registry, "team/app")
			got := "nobody"
			switch {
			case err != nil:
				t.Fatal(err)
			case user != nil && user.IdentityToken != "":
				got = "<" + user.IdentityToken + ">"
			case user != nil:
				got = fmt.Sprint(user.Username, " ", user.Password)
			}
			if got != row.want {
				t.Errorf("got %s, want %s", got, row.want)
			}
		})
	}
}

func TestFor_refuses(t *testing.T) {
	helper(t, "broken", `echo secret; echo secret >&2; exit 3`)
	helper(t, "odd", `echo secret`)
	open := t.TempDir()
	loose := filepath.Join(open, "docker-credential-loose")
	if err := os.WriteFile(loose, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(loose, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", open+":"+os.Getenv("PATH"))
	for name, row := range map[string]struct {
		sources Sources
		says    string
	}{
		"a helper that fails":              {Sources{Helper: "broken"}, "docker-credential-broken"},
		"an answer that is none":           {Sources{Helper: "odd"}, "docker-credential-odd"},
		"a helper that is missing":         {Sources{Helper: "missing"}, "PATH"},
		"a helper that anybody may write":  {Sources{Helper: "loose"}, "everybody may write"},
		"a file that is missing":           {Sources{File: "/nonexistent/config.json"}, "/nonexistent/config.json"},
		"a file that is no JSON":           {Sources{File: config(t, `{"auths": secret`)}, "config.json"},
		"an auth that is none":             {Sources{File: config(t, `{"auths":{"h":{"auth":"secret"}}}`)}, "USER:PASSWORD"},
		"a file that leads to a directory": {Sources{File: config(t, `{"credHelpers":{"h":"../../bin/sh"}}`)}, "no name of a credential helper"},
	} {
		t.Run(name, func(t *testing.T) {
			user, err := row.sources.For(t.Context(), "h", "a")
			if err == nil || user != nil || !strings.Contains(err.Error(), row.says) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, %v", user, err)
			}
		})
	}
}
