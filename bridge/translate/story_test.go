package translate

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"code.cloudfoundry.org/bbs/models"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"drover/driver"
)

var update = flag.Bool("update", false, "rewrite the expectations under testdata")

// TestStories reads each story of testdata: prose, then lrp.json or task.json with the request and perhaps
// options.json, then what must come of it: job.json and secrets.json, or error.
func TestStories(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Fatal("no stories")
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) { tellStory(t, path) })
	}
}

func tellStory(t *testing.T, path string) {
	t.Helper()
	story, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	given := map[string][]byte{}
	var inputs []txtar.File
	want := map[string]string{}
	for _, file := range story.Files {
		switch file.Name {
		case "lrp.json", "task.json", "options.json":
			given[file.Name] = file.Data
			inputs = append(inputs, file)
		default:
			want[file.Name] = string(file.Data)
		}
	}
	outputs := translateStory(t, given)
	if *update {
		story.Files = append(inputs, outputs...)
		if err := os.WriteFile(path, txtar.Format(story), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	got := map[string]string{}
	for _, file := range outputs {
		got[file.Name] = string(file.Data)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("story (-want +got), run make golden when the change is meant:\n%s", diff)
	}
}

// translateStory returns the files that a story ends in.
func translateStory(t *testing.T, given map[string][]byte) []txtar.File {
	t.Helper()
	var options Options
	if raw := given["options.json"]; raw != nil {
		decode(t, raw, &options)
	}
	var work Work
	var err error
	switch {
	case given["lrp.json"] != nil:
		var lrp models.DesiredLRP
		decode(t, given["lrp.json"], &lrp)
		work, err = LRP(&lrp, options)
	case given["task.json"] != nil:
		var task models.Task
		decode(t, given["task.json"], &task)
		work, err = Task(task.TaskGuid, task.Domain, "epoch", task.TaskDefinition, options)
	default:
		t.Fatal("the story has neither lrp.json nor task.json")
	}
	if err != nil {
		text := fmt.Sprintf("%s: %s\n", models.ConvertError(err).GetType(), err)
		return []txtar.File{{Name: "error", Data: []byte(text)}}
	}
	return []txtar.File{
		{Name: "job.json", Data: encode(t, prune(roundTrip(t, work.Job)))},
		{Name: "secrets.json", Data: encode(t, readSecrets(t, work.Secrets))},
	}
}

func decode(t *testing.T, raw []byte, into any) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if err := decoder.Decode(into); err != nil {
		t.Fatal(err)
	}
}

func encode(t *testing.T, value any) []byte {
	t.Helper()
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// roundTrip makes plain maps of a value.
func roundTrip(t *testing.T, value any) any {
	t.Helper()
	var result any
	decode(t, encode(t, value), &result)
	return result
}

// prune drops what a jobspec would not say.
func prune(value any) any {
	switch value := value.(type) {
	case map[string]any:
		maps.DeleteFunc(value, func(key string, child any) bool {
			value[key] = prune(child)
			return value[key] == nil
		})
		if len(value) > 0 {
			return value
		}
		return nil
	case []any:
		for i, child := range value {
			if child != "" {
				value[i] = prune(child)
			}
		}
		if len(value) > 0 {
			return value
		}
		return nil
	}
	if value == "" || value == false {
		return nil
	}
	return value
}

type secretsStory struct {
	Paths      []string
	Kind       string
	GUID       string
	Definition any
	// text shows the definition with all that JSON leaves out.
	text string
}

func readSecrets(t *testing.T, secrets []Secret) secretsStory {
	t.Helper()
	var story secretsStory
	var texts []string
	for _, secret := range secrets {
		story.Paths = append(story.Paths, secret.Path)
		texts = append(texts, secret.Text)
	}
	info, err := DecodeSecrets(texts)
	if err != nil {
		t.Fatal(err)
	}
	story.Kind, story.GUID = info.Kind, info.GUID
	if info.Kind == driver.KindLRP {
		var lrp models.DesiredLRP
		if err := lrp.Unmarshal(info.Definition); err != nil {
			t.Fatal(err)
		}
		story.Definition, story.text = prune(roundTrip(t, &lrp)), lrp.String()
		return story
	}
	var task models.TaskDefinition
	if err := task.Unmarshal(info.Definition); err != nil {
		t.Fatal(err)
	}
	story.Definition, story.text = prune(roundTrip(t, &task)), task.String()
	return story
}
