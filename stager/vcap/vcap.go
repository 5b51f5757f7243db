// Package vcap derives what builder and launcher owe a process from the VCAP_* variables that Cloud Controller sets.
//
// An environment is a slice of NAME=value as os.Environ gives it; functions return new slices and change none.
package vcap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"drover/stager"
)

// Get returns the value of the last entry of a variable, as a process would see it.
func Get(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(env[i], name+"="); ok {
			return value
		}
	}
	return ""
}

// Set returns env with exactly one entry of the variable.
func Set(env []string, name, value string) []string {
	return append(Unset(env, name), name+"="+value)
}

// Unset returns env without the variable.
func Unset(env []string, name string) []string {
	out := make([]string, 0, len(env)+1)
	for _, entry := range env {
		if !strings.HasPrefix(entry, name+"=") {
			out = append(out, entry)
		}
	}
	return out
}

// Prepare returns the environment in which buildpacks and droplets run: without VCAP_PLATFORM_OPTIONS, which is the
// platform's own, and with DATABASE_URL when a bound service suggests one. Its errors carry exit codes.
func Prepare(env []string) ([]string, error) {
	if err := refuseCredHub(env); err != nil {
		return nil, err
	}
	env = Unset(env, "VCAP_PLATFORM_OPTIONS")
	url := databaseURL(Get(env, "VCAP_SERVICES"))
	if strings.ContainsRune(url, 0) {
		return nil, stager.Fail(stager.ExitDatabaseURL, "unable to set DATABASE_URL: the service's uri contains a zero byte")
	}
	if url == "" {
		return env, nil
	}
	return Set(env, "DATABASE_URL", url), nil
}

// refuseCredHub fails for an app whose credentials are references that the platform promised to resolve.
func refuseCredHub(env []string) error {
	text := Get(env, "VCAP_PLATFORM_OPTIONS")
	if text == "" {
		return nil
	}
	var options struct {
		CredHubURI string `json:"credhub-uri"`
	}
	if err := json.Unmarshal([]byte(text), &options); err != nil {
		// The error is not wrapped: it may quote what it could not read.
		return stager.Fail(stager.ExitEnvironment, "invalid platform options: VCAP_PLATFORM_OPTIONS is not a JSON object with a string credhub-uri")
	}
	if options.CredHubURI == "" || !strings.Contains(Get(env, "VCAP_SERVICES"), `"credhub-ref"`) {
		return nil
	}
	return stager.Fail(stager.ExitCredHub, "unable to interpolate credhub references: VCAP_SERVICES holds a credhub-ref, and CredHub is not supported by this release")
}

// databaseURL returns the first service's uri with a database's scheme, in the order of the text. Services that are not
// understood offer no database: an app may set VCAP_SERVICES to what it likes.
func databaseURL(services string) string {
	dec := json.NewDecoder(strings.NewReader(services))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return ""
	}
	for dec.More() {
		if _, err := dec.Token(); err != nil { // The label.
			return ""
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return ""
		}
		if url := databaseOf(raw); url != "" {
			return url
		}
	}
	return ""
}

// databaseOf looks through the services of one label.
func databaseOf(label json.RawMessage) string {
	var services []struct {
		Credentials map[string]any `json:"credentials"`
	}
	if err := json.Unmarshal(label, &services); err != nil {
		return ""
	}
	for _, service := range services {
		uri, _ := service.Credentials["uri"].(string)
		scheme, rest, ok := strings.Cut(uri, "://")
		if !ok {
			continue
		}
		switch scheme {
		case "mysql", "mysql2":
			return "mysql2://" + rest
		case "postgres", "postgresql":
			return "postgres://" + rest
		}
	}
	return ""
}

// Application returns env with VCAP_APPLICATION completed by what only the running instance knows. A VCAP_APPLICATION
// that is missing or no JSON object stays as it is.
func Application(env []string) []string {
	var app map[string]json.RawMessage
	dec := json.NewDecoder(strings.NewReader(Get(env, "VCAP_APPLICATION")))
	if err := dec.Decode(&app); err != nil || app == nil || !atEnd(dec) {
		return env
	}
	app["host"] = json.RawMessage(`"0.0.0.0"`)
	app["instance_id"] = quote(Get(env, "INSTANCE_GUID"))
	if port, err := strconv.Atoi(Get(env, "PORT")); err == nil {
		app["port"] = json.RawMessage(strconv.Itoa(port))
	}
	if index, err := strconv.Atoi(Get(env, "INSTANCE_INDEX")); err == nil {
		app["instance_index"] = json.RawMessage(strconv.Itoa(index))
	}
	text, err := marshal(app)
	if err != nil {
		return env
	}
	return Set(env, "VCAP_APPLICATION", text)
}

func atEnd(dec *json.Decoder) bool {
	_, err := dec.Token()
	return errors.Is(err, io.EOF)
}

func quote(s string) json.RawMessage {
	text, err := marshal(s)
	if err != nil {
		return json.RawMessage(`""`) // Strings always marshal.
	}
	return json.RawMessage(text)
}

// marshal leaves <, > and & as they are: the text is for a program's environment, not for a web page.
func marshal(v any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", fmt.Errorf("encoding: %w", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}
